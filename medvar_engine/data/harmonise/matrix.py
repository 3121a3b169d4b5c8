"""Resampling of slices to a common matrix with square pixels, of a given size in mm or fitted to the matrix."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from medvar_engine.types import FloatArray

AIR = -1.0
"""Value outside the scan, in the harmonised image's [-1, 1]."""

_TRUNCATE = 4.0  # radius of a Gaussian filter, in standard deviations


def fit_to_matrix(
    image: FloatArray, spacing: tuple[float, float], size: int, padding: float = AIR
) -> tuple[FloatArray, float]:
    """Resample an image (H, W) in [-1, 1] to (size, size) with square pixels; returns it and its pixel size in mm.

    ``spacing`` is the pixel size of rows and columns in mm. The longer side fills the matrix; the shorter one is
    centred and padded with ``padding``.
    """
    height, width = image.shape
    pixel = fitting_pixel((height, width), spacing, size)
    return np.ascontiguousarray(resample(image[np.newaxis], spacing, pixel, size, padding)[0]), pixel


def fitting_pixel(sides: tuple[int, int], spacing: tuple[float, float], size: int) -> float:
    """The pixel size in mm with which an image of ``sides`` (H, W) just fits into ``size`` × ``size`` square pixels."""
    return float(max(sides[0] * spacing[0], sides[1] * spacing[1]) / size)


def resample(
    images: FloatArray, spacing: tuple[float, float], pixel: float, size: int, padding: float = AIR
) -> FloatArray:
    """Resample images (N, H, W) in [-1, 1] about their centre to (N, size, size), with square pixels of ``pixel`` mm.

    Parts outside the matrix are cut off, and missing parts are filled with ``padding``. Values are interpolated
    linearly, after a Gaussian filter against aliasing if pixels become larger. The result for each image does not
    depend on the others. It needs memory for a few copies of ``images``, so pass a large stack in parts.
    """
    count, height, width = images.shape
    rows, no_rows = _weights(height, pixel / spacing[0], size)
    columns, no_columns = _weights(width, pixel / spacing[1], size)
    # A sparse matrix multiplies an array along its first axis, so the columns come first, and then the rows.
    narrow = columns @ np.ascontiguousarray(images.transpose(2, 0, 1)).reshape(width, count * height)
    turned = np.ascontiguousarray(narrow.reshape(size, count, height).transpose(2, 0, 1))
    fitted: FloatArray = (rows @ turned.reshape(height, size * count)).reshape(size, size, count)
    np.clip(fitted, -1.0, 1.0, out=fitted)
    fitted[no_rows] = padding
    fitted[:, no_columns] = padding
    return fitted.transpose(2, 0, 1)


@lru_cache(maxsize=64)
def _weights(length: int, step: float, size: int) -> tuple[sparse.csr_array, NDArray[np.intp]]:
    """Weights (size, length) to resample a line of ``length`` pixels, and the new pixels that lie outside it.

    A new pixel is ``step`` old pixels wide, and both lines have the same centre. Beyond its ends a line is continued
    with its last value.
    """
    at = (length - 1) / 2 + step * (np.arange(size) - (size - 1) / 2)
    outside = np.flatnonzero((at < -0.5 - 1e-6) | (at > length - 0.5 + 1e-6))
    at = np.clip(at, 0, length - 1)
    left = np.floor(at).astype(np.intp)
    share = (at - left)[:, np.newaxis]
    sigma = max(0.0, (step - 1.0) / 2.0)
    reach = int(_TRUNCATE * sigma + 0.5)
    distances = np.arange(-reach, reach + 1)
    gaussian = np.exp(-0.5 * (distances / sigma) ** 2) if reach else np.ones(1)
    gaussian /= gaussian.sum()
    # Between two old pixels, the weights are a mixture of two Gaussians, one about each.
    values = (1 - share) * np.append(gaussian, 0) + share * np.append(0, gaussian)
    places = np.clip(left[:, np.newaxis] + np.arange(-reach, reach + 2), 0, length - 1)
    lines = np.broadcast_to(np.arange(size)[:, np.newaxis], places.shape)
    weights = sparse.coo_array((values.ravel(), (lines.ravel(), places.ravel())), shape=(size, length)).tocsr()
    weights.eliminate_zeros()
    return weights.astype(np.float32), outside
