"""Resampling of masks to the matrix of their slices by nearest neighbour, which creates no new structures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvar_engine.masks.structures import MaskArray


def resample_nearest(masks: MaskArray, spacing: tuple[float, float], pixel: float, size: int) -> MaskArray:
    """Resample masks (N, H, W) to (N, size, size), like `medvar_engine.data.harmonise.matrix.resample` for images.

    Each new pixel, a square of ``pixel`` mm, has the value of the old pixel at its centre, or 0 outside.
    """
    rows, no_rows = _nearest(masks.shape[1], pixel / spacing[0], size)
    columns, no_columns = _nearest(masks.shape[2], pixel / spacing[1], size)
    fitted = masks[:, rows][:, :, columns]
    fitted[:, no_rows] = 0
    fitted[:, :, no_columns] = 0
    return fitted


def _nearest(length: int, step: float, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The old pixel of each new pixel along a line, and the new pixels that lie outside it."""
    at = (length - 1) / 2 + step * (np.arange(size) - (size - 1) / 2)
    outside = np.flatnonzero((at < -0.5 - 1e-6) | (at > length - 0.5 + 1e-6))
    return np.clip(np.floor(at + 0.5), 0, length - 1).astype(np.intp), outside
