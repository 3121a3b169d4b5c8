"""Reorients arrays to the closest RAS+ orientation. Only this module flips axes and converts LPS to RAS."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

SMALLEST_MM, LARGEST_MM = 1e-3, 1e3  # limits of a voxel's side, beyond which a header is wrong
LARGEST_SHEAR = 1e-2  # largest cosine between two axes; rounding errors of headers are far below it


def lps_to_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert an affine (4, 4) to LPS mm, as in DICOM and ITK, to one to RAS mm."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def to_ras(
    array: NDArray[np.generic], affine: NDArray[np.float64], where: Path
) -> tuple[FloatArray, NDArray[np.float64], tuple[float, float, float]]:
    """Flip and permute the axes of an array and its affine (to RAS mm) to the closest RAS+ orientation.

    Nothing is resampled: an oblique scan stays oblique. Returns the array, its affine, and the voxel size in mm. Raises
    `MedvarError` when the affine is degenerate or sheared, or values are not finite.
    """
    with np.errstate(over="ignore"):  # a damaged header can overflow; it is refused as too large below
        sides = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)) if np.isfinite(affine).all() else np.zeros(3)
    if (sides < SMALLEST_MM).any() or (sides > LARGEST_MM).any():
        raise MedvarError(f"{where}: the affine does not describe a volume: {affine.round(3).tolist()}.")
    if abs(np.linalg.det(affine[:3, :3] / sides)) < 1e-3:
        raise MedvarError(f"{where}: the affine does not describe a volume: its axes lie in one plane.")
    axes = affine[:3, :3] / sides
    if (shear := float(np.abs(axes.T @ axes - np.eye(3)).max())) > LARGEST_SHEAR:
        raise MedvarError(
            f"{where}: its axes are not at right angles, {np.degrees(np.arcsin(min(shear, 1.0))):.1f} degrees off "
            "(gantry tilt, or a sheared stack). Resample it to an upright grid first."
        )
    orientation = nib.orientations.io_orientation(affine)  # type: ignore[no-untyped-call]
    turned = nib.orientations.apply_orientation(array, orientation)  # type: ignore[no-untyped-call]
    turned_affine = affine @ nib.orientations.inv_ornt_aff(orientation, array.shape)  # type: ignore[no-untyped-call]
    x, y, z = (float(size) for size in np.sqrt((turned_affine[:3, :3] ** 2).sum(axis=0)))
    with np.errstate(over="ignore"):
        # The memory order is kept, because reordering a scan in memory takes longer than reading it. A memory map is
        # copied, because the file may be removed later.
        values = turned.astype(np.float32, order="K", copy=isinstance(array, np.memmap))
    if array.dtype.kind not in "biu":
        check_finite(values, where)
    return values, turned_affine, (x, y, z)


def check_finite(values: FloatArray, where: Path) -> None:
    """Raise `MedvarError` when a voxel is not a number."""
    if not np.isfinite([values.min(), values.max()]).all():  # the minimum is NaN if any value is; this needs no memory
        raise MedvarError(f"{where}: {int((~np.isfinite(values)).sum())} voxels are not finite numbers.")
