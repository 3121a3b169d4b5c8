"""Cut volumes into axial, coronal and sagittal slices, shown as radiologists look at them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.settings import within
from medvar_engine.data.volume import FloatArray, Volume
from medvar_engine.errors import MedvarError

PLANES = ("axial", "coronal", "sagittal")

# Plane → (array axis of its normal, of its rows, of its columns); rows and columns run against the RAS axes:
# anterior or head up, patient right (axial, coronal) or anterior (sagittal) on the image's left.
_AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """One slice: ``image`` (H, W), pixel size in mm of rows and columns, and where it lies along its normal in RAS mm.

    ``plane`` is None for frames of which the file does not say how they lie; ``position_mm`` is NaN then.
    """

    image: FloatArray
    plane: str | None
    spacing: tuple[float, float]
    position_mm: float
    index: int


@dataclass(frozen=True, slots=True)
class SliceRules:
    """Which slices are worth keeping.

    A plane is used when its pixels are at most ``max_anisotropy`` times as long as wide and both sides have
    ``min_side`` pixels. A slice is used when tissue fills ``min_foreground`` of it, and when it shows at least
    ``min_relative`` of the tissue of the plane's fullest slice: the rest are the ends of a head, and tables. A slice is
    dropped when it nearly repeats one of the same series and plane: fewer than ``duplicate_bits`` of the 256 bits of
    their fingerprints differ, and the mean difference of their pixels is below ``duplicate_difference`` of the whole
    range. Phases of a cine have such slices, where nothing moves; neighbours in a still scan differ more. 0 keeps all.
    """

    planes: tuple[str, ...] = PLANES
    max_anisotropy: float = 2.5
    min_side: int = 40
    min_foreground: float = 0.08
    min_relative: float = 0.25
    duplicate_bits: int = 4
    duplicate_difference: float = 0.005

    def __post_init__(self) -> None:
        if isinstance(self.planes, str):
            raise MedvarError(f"planes is a list of planes, but got {self.planes!r}.")
        unknown = [plane for plane in self.planes if plane not in PLANES]
        if unknown or not self.planes:
            raise MedvarError(f"Unknown planes {unknown}; the planes are {', '.join(PLANES)}.")
        within("max_anisotropy, the longest over the shortest side of a pixel,", self.max_anisotropy, 1, 1000)
        within("min_side, in pixels,", self.min_side, 1, 10_000, whole=True)
        within("min_foreground, a share of the slice,", self.min_foreground, 0, 1)
        within("min_relative, a share of the fullest slice,", self.min_relative, 0, 1)
        within("duplicate_bits, of 256,", self.duplicate_bits, 0, 256, whole=True)
        within("duplicate_difference, a share of the range,", self.duplicate_difference, 0, 1)


def view(array: FloatArray, plane: str, index: int) -> FloatArray:
    """Slice ``index`` of an RAS+ array (X, Y, Z) as an image (H, W) in radiological convention."""
    normal, rows, _ = _AXES[plane]
    image = np.take(array, index, axis=normal)  # (rows, columns) or (columns, rows) in array order
    return np.asarray((image.T if rows > _AXES[plane][2] else image)[::-1, ::-1])


def usable_planes(volume: Volume, rules: SliceRules) -> list[str]:
    """The planes asked for in which the volume's pixels are not too long and the sides not too short."""
    planes = []
    for plane in rules.planes:
        _, rows, columns = _AXES[plane]
        pair = (volume.spacing[rows], volume.spacing[columns])
        sides = (volume.array.shape[rows], volume.array.shape[columns])
        if max(pair) <= rules.max_anisotropy * min(pair) and min(sides) >= rules.min_side:
            planes.append(plane)
    return planes


def cut(volume: Volume, image: FloatArray, foreground: float, rules: SliceRules) -> Iterator[Slice]:
    """Slices of ``image`` (X, Y, Z), the harmonised ``volume``, that show enough tissue.

    A voxel of ``volume`` above ``foreground`` (HU or arbitrary) is tissue.
    """
    tissue = volume.array > foreground
    if not volume.oriented:
        row_mm, column_mm = volume.spacing[1], volume.spacing[0]
        for index in _worth_keeping(tissue.mean(axis=(0, 1)), rules):
            yield Slice(view(image, "axial", index), None, (row_mm, column_mm), float("nan"), index)
        return
    centre = (np.asarray(volume.array.shape) - 1) / 2
    for plane in usable_planes(volume, rules):
        normal, rows, columns = _AXES[plane]
        spacing = (volume.spacing[rows], volume.spacing[columns])
        for index in _worth_keeping(tissue.mean(axis=(rows, columns)), rules):
            place = centre.copy()
            place[normal] = index
            position = volume.affine[normal, :3] @ place + volume.affine[normal, 3]
            yield Slice(view(image, plane, index), plane, spacing, float(position), index)


def _worth_keeping(fractions: NDArray[np.floating], rules: SliceRules) -> list[int]:
    """Indices of the slices whose fraction of tissue is high enough."""
    needed = max(rules.min_foreground, rules.min_relative * float(fractions.max(initial=0.0)))
    return [int(index) for index in np.flatnonzero(fractions >= needed)]
