"""Cuts volumes into axial, coronal and sagittal slices in radiological orientation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.check_setting import within
from medvar_engine.data.read.volume import MINIMUM_SLICES, Volume
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

PLANES = ("axial", "coronal", "sagittal")
"""The planes that volumes are cut into."""

_Value = TypeVar("_Value", bound=np.generic)

SINGLE_PLANES = (*PLANES, "short-axis")
"""The planes of single slices; short axis means that of the left ventricle of the heart."""

SLAB = 16
"""Number of slices that are processed together: few enough for the processor's cache, enough to be efficient."""

AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
"""Plane → (array axis of its normal, of its rows, of its columns). Rows and columns run against the RAS axes: anterior
or head up, the patient's right (axial, coronal) or anterior (sagittal) on the left of the image.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """Consecutive slices of one plane, as a view of the volume without a copy.

    ``images`` are (N, H, W), with the pixel size of rows and columns in mm, and the position of each slice along its
    normal in RAS mm. ``places`` are relative positions along the whole scan from 0 to 1: (i + ½) / n for the i-th of n
    slices, counted from the feet to the head, from back to front, or from the patient's left to the right.
    ``plane`` is None for frames without an orientation; positions and places are then NaN. Places are also NaN for a
    slice without neighbours. ``first`` is the index of the first slice along the normal.
    """

    images: FloatArray
    plane: str | None
    spacing: tuple[float, float]
    positions_mm: NDArray[np.float64]
    places: NDArray[np.float64]
    first: int


@dataclass(frozen=True, slots=True)
class SliceRules:
    """Rules for the slices to use.

    A plane is used if its pixels are at most ``max_anisotropy`` times as long as wide and both sides have at least
    ``min_side`` pixels. A slice is used if tissue fills at least ``min_foreground`` of it, and at least
    ``min_relative`` of the tissue area of the plane's fullest slice; this excludes the end of a head, for example. A
    near-duplicate of a slice of the same series and plane is left out: fewer than ``duplicate_bits`` of the 256 bits of
    their fingerprints differ, and the mean difference of their pixels is below ``duplicate_difference`` of the whole
    range. Phases of a cine without motion contain such slices; neighbours in other scans differ more. 0 keeps all
    slices.
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
            raise MedvarError(f"planes must be a list of planes, but is {self.planes!r}.")
        unknown = [plane for plane in self.planes if plane not in SINGLE_PLANES]
        if unknown or not self.planes:
            raise MedvarError(f"Unknown planes {unknown}. The planes are {', '.join(SINGLE_PLANES)}.")
        within("max_anisotropy, the longest over the shortest side of a pixel,", self.max_anisotropy, 1, 1000)
        within("min_side, in pixels,", self.min_side, 1, 10_000, whole=True)
        within("min_foreground, a fraction of the slice,", self.min_foreground, 0, 1)
        within("min_relative, a fraction of the fullest slice,", self.min_relative, 0, 1)
        within("duplicate_bits, of 256,", self.duplicate_bits, 0, 256, whole=True)
        within("duplicate_difference, a fraction of the range,", self.duplicate_difference, 0, 1)


def view(array: NDArray[_Value], plane: str) -> NDArray[_Value]:
    """All slices of an RAS+ array (X, Y, Z) as images (N, H, W) in radiological orientation, without a copy."""
    return array.transpose(AXES[plane])[:, ::-1, ::-1]


def usable_planes(volume: Volume, rules: SliceRules) -> list[str]:
    """The requested planes that fulfil the rules for pixels and sides."""
    planes = []
    for plane in (one for one in rules.planes if one in PLANES):
        _, rows, columns = AXES[plane]
        pair = (volume.spacing[rows], volume.spacing[columns])
        sides = (volume.array.shape[rows], volume.array.shape[columns])
        # A synthetic image is one slice of one plane, whatever the rules for sides.
        if max(pair) <= rules.max_anisotropy * min(pair) and min(sides) >= max(rules.min_side, MINIMUM_SLICES):
            planes.append(plane)
    return planes


def cut(volume: Volume, foreground: float, rules: SliceRules) -> Iterator[Slab]:
    """The slices of ``volume`` with enough tissue, a few at a time, with their original values.

    A voxel above ``foreground`` (in HU or arbitrary units) is tissue.
    """
    tissue = volume.array > foreground
    for plane in usable_planes(volume, rules) if volume.oriented else ["axial"]:
        normal, rows, columns = AXES[plane]
        place = (np.asarray(volume.array.shape) - 1) / 2
        place[normal] = 0.0
        start = volume.affine[normal, :3] @ place + volume.affine[normal, 3]
        area = tissue.shape[rows] * tissue.shape[columns]
        kept = _worth_keeping(_counts(np.moveaxis(tissue, normal, 0)) / area, rules)
        count = volume.array.shape[normal]
        for run in _runs(kept):
            unknown = np.full(len(run), np.nan)
            yield Slab(
                view(volume.array, plane)[run[0] : run[-1] + 1],
                plane if volume.oriented else None,
                (volume.spacing[rows], volume.spacing[columns]),
                start + volume.affine[normal, normal] * run if volume.oriented else unknown,
                (run + 0.5) / count if volume.oriented and count >= MINIMUM_SLICES else unknown,
                int(run[0]),
            )


def _counts(slices: NDArray[np.bool_]) -> NDArray[np.intp]:
    """How many voxels of each slice (N, …) are True."""
    if slices[0].flags.forc:  # where a slice lies in one piece, NumPy counts much faster than it sums
        return np.asarray([np.count_nonzero(one) for one in slices])
    return np.asarray(slices.sum(axis=(1, 2)))


def _worth_keeping(fractions: NDArray[np.floating], rules: SliceRules) -> NDArray[np.intp]:
    """The indices of the slices with a sufficient fraction of tissue."""
    needed = max(rules.min_foreground, rules.min_relative * float(fractions.max(initial=0.0)))
    return np.flatnonzero(fractions >= needed)


def _runs(indices: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Ascending indices as runs without gaps, of at most `SLAB` indices."""
    for run in np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1):
        for start in range(0, len(run), SLAB):
            yield run[start : start + SLAB]
