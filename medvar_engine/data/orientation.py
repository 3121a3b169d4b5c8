"""Turn arrays to the closest RAS+ orientation."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.volume import FloatArray
from medvar_engine.errors import MedvarError


def to_ras(
    array: NDArray[np.generic], affine: NDArray[np.float64], where: Path
) -> tuple[FloatArray, NDArray[np.float64], tuple[float, float, float]]:
    """Array and affine (to RAS mm) with axes flipped and permuted to the closest RAS+ orientation.

    Nothing is resampled: an oblique scan stays oblique, and its affine says so.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise MedvarError(f"{where}: the affine does not describe a volume: {affine.round(3).tolist()}.")
    orientation = nib.orientations.io_orientation(affine)  # type: ignore[no-untyped-call]
    turned = nib.orientations.apply_orientation(array, orientation)  # type: ignore[no-untyped-call]
    turned_affine = affine @ nib.orientations.inv_ornt_aff(orientation, array.shape)  # type: ignore[no-untyped-call]
    x, y, z = (float(size) for size in np.sqrt((turned_affine[:3, :3] ** 2).sum(axis=0)))
    values = np.ascontiguousarray(turned, dtype=np.float32)
    if not np.isfinite(values).all():
        raise MedvarError(f"{where}: {int((~np.isfinite(values)).sum())} voxels are not finite numbers.")
    return values, turned_affine, (x, y, z)
