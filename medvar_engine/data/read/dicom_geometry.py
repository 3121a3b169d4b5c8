"""The positions of DICOM frames, and whether they form a volume. Irregular stacks are refused with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from highdicom.spatial import get_volume_positions
from numpy.typing import NDArray

from medvar_engine.data.read.orientation import lps_to_ras
from medvar_engine.data.read.volume import MINIMUM_SLICES
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

LARGEST_NUMBER = 1e6


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """Position (3) of a frame's first pixel in LPS mm, orientation (6) of rows and columns, pixel spacing (2) in mm.

    Raises `ValueError` for a wrong number of values, and for impossible values.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values, count in (
            ("ImagePositionPatient", self.position, 3),
            ("ImageOrientationPatient", self.orientation, 6),
            ("PixelSpacing", self.spacing, 2),
        ):
            if len(values) != count or not all(abs(value) <= LARGEST_NUMBER for value in values):  # false for NaN
                raise ValueError(f"{name} is {values}; {count} numbers are expected")
        rows, columns = np.reshape(self.orientation, (2, 3))
        if max(abs(rows @ rows - 1), abs(columns @ columns - 1), abs(rows @ columns)) > 1e-2:
            raise ValueError(
                f"ImageOrientationPatient is {self.orientation}; two unit vectors at a right angle are expected"
            )

    @property
    def normal(self) -> NDArray[np.float64]:
        """The unit normal vector (3) of the frame, LPS."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)

    @property
    def depth(self) -> float:
        """The distance in mm of the frame from the origin along its normal."""
        return float(np.dot(self.normal, self.position))

    def is_parallel(self, other: FrameGeometry) -> bool:
        """Whether both have the same orientation and pixel size."""
        return _near(self.orientation, other.orientation, 1e-3) and all(
            math.isclose(one, another, rel_tol=1e-3) for one, another in zip(self.spacing, other.spacing, strict=True)
        )


def stack_affine(
    frames: Sequence[FrameGeometry],
    where: Path,
    minimum: int = MINIMUM_SLICES,
    pixels: Callable[[], FloatArray] | None = None,
) -> tuple[list[int], NDArray[np.float64]]:
    """The order of frames along their normal, and the affine of an array (columns, rows, frames) to RAS mm.

    A single frame is as thick as its rows are apart. Raises `MedvarError` when frames are missing, repeated, unevenly
    spaced, tilted, or fewer than ``minimum``. Only in these cases ``pixels`` (N, rows, columns) are read, to find out
    whether frames at the same position are equal.
    """
    first = frames[0]
    if len(frames) < minimum:
        raise MedvarError(f"{where}: {len(frames)} slices; a scan needs at least {minimum}.")
    if not all(first.is_parallel(frame) for frame in frames):
        raise MedvarError(f"{where}: slices of one series differ in orientation or pixel spacing.")
    step, places = get_volume_positions([frame.position for frame in frames], first.orientation)
    if step is None or places is None:
        raise MedvarError(f"{where}: {explain(frames, None if pixels is None else pixels())}")
    order = sorted(range(len(frames)), key=lambda index: frames[index].depth)
    row_mm, column_mm = first.spacing[:2]
    start, end = np.asarray(frames[order[0]].position), np.asarray(frames[order[-1]].position)
    affine = np.eye(4)
    affine[:3, 0] = np.asarray(first.orientation[:3]) * column_mm
    affine[:3, 1] = np.asarray(first.orientation[3:]) * row_mm
    affine[:3, 2] = (end - start) / (len(frames) - 1) if len(frames) > 1 else first.normal * row_mm
    affine[:3, 3] = start
    return order, lps_to_ras(affine)


def explain(frames: Sequence[FrameGeometry], pixels: FloatArray | None = None) -> str:
    """The reason why frames do not form a volume, as text."""
    found = np.asarray([frame.depth for frame in frames])
    order = np.argsort(found, kind="stable")
    depths = found[order]
    gaps = np.diff(depths)
    repeated = int((gaps < 1e-2).sum())
    if repeated:
        if pixels is not None:
            pairs = [(order[at], order[at + 1]) for at in np.flatnonzero(gaps < 1e-2)]
            if not all(np.array_equal(pixels[one], pixels[another], equal_nan=True) for one, another in pairs):
                return (
                    f"{repeated} of {len(frames)} slices lie at a position that another slice has and show something "
                    "else; neither time, echo, b-value, direction, ImageType nor a number parts them into volumes."
                )
        return f"{repeated} of {len(frames)} slices are duplicates, at a position that another slice has."
    usual = float(np.median(gaps))
    wide = np.flatnonzero(gaps > 1.5 * usual)
    whole = np.round(gaps / usual)
    if wide.size and np.allclose(gaps, whole * usual, rtol=0.05):
        at = ", ".join(f"between {depths[i]:.2f} and {depths[i + 1]:.2f} mm" for i in wide[:3])
        return f"{int((whole - 1).sum())} slices are missing, {at} (usual spacing {usual:.2f} mm)."
    if not np.allclose(gaps, usual, rtol=0.02):
        return f"slice spacing is uneven, {gaps.min():.3f} to {gaps.max():.3f} mm."
    return "slices are not stacked along their normal (gantry tilt, or a sheared stack)."


def parallel(frames: Sequence[tuple[float, ...] | None], tolerance: float = 1e-3) -> list[list[int]]:
    """Groups of indices of frames with equal values (e.g. orientation) within a tolerance; None forms a group."""
    groups: dict[tuple[float, ...] | None, list[int]] = {}
    for index, numbers in enumerate(frames):
        first = numbers
        if numbers is not None and numbers not in groups:
            first = next((one for one in groups if one is not None and _near(one, numbers, tolerance)), numbers)
        groups.setdefault(first, []).append(index)
    return list(groups.values())


def _near(first: tuple[float, ...], second: tuple[float, ...], tolerance: float) -> bool:
    return len(first) == len(second) and all(abs(a - b) <= tolerance for a, b in zip(first, second, strict=True))
