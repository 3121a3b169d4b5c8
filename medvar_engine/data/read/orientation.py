"""Turn arrays to the closest RAS+ orientation. The one place where axes are flipped, and LPS becomes RAS."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

SMALLEST_MM, LARGEST_MM = 1e-3, 1e3  # of a voxel's side; beyond them a header is wrong
LARGEST_SHEAR = 1e-2  # cosine between two axes; rounded headers stay far below it


def lps_to_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """An affine (4, 4) to LPS mm, as DICOM and ITK have it, as one to RAS mm."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def to_ras(
    array: NDArray[np.generic], affine: NDArray[np.float64], where: Path
) -> tuple[FloatArray, NDArray[np.float64], tuple[float, float, float]]:
    """Array and affine (to RAS mm) with axes flipped and permuted to the closest RAS+ orientation.

    Nothing is resampled: an oblique scan stays oblique, and its affine says so.
    Raises `MedvarError` when the affine describes no volume or a sheared one, or values are not finite numbers.
    """
    with np.errstate(over="ignore"):  # of damaged headers; then it is too large for a volume
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
        # In the order in which the voxels lie in memory: to turn a scan there takes longer than to read it. A map of a
        # file is copied, which may be gone later.
        values = turned.astype(np.float32, order="K", copy=isinstance(array, np.memmap))
    if array.dtype.kind not in "biu":
        check_finite(values, where)
    return values, turned_affine, (x, y, z)


def check_finite(values: FloatArray, where: Path) -> None:
    """Raise `MedvarError` when a voxel is not a number."""
    if not np.isfinite([values.min(), values.max()]).all():  # a NaN is its own minimum; this takes no memory
        raise MedvarError(f"{where}: {int((~np.isfinite(values)).sum())} voxels are not finite numbers.")
