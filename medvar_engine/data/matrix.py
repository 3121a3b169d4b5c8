"""One matrix for all slices: square pixels of a stated size in mm, or as large as fit."""

from __future__ import annotations

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from medvar_engine.data.volume import FloatArray

AIR = -1.0
"""What is put where the scan does not reach, in the harmonised image's [-1, 1]."""


def fit_to_matrix(
    image: FloatArray, spacing: tuple[float, float], size: int, padding: float = AIR
) -> tuple[FloatArray, float]:
    """Resample an image (H, W) in [-1, 1] to (size, size) with square pixels; gives it and its pixel size in mm.

    ``spacing`` is the pixel size in mm of rows and columns. The longer side fills the matrix, the shorter one is
    centred and filled up with ``padding``.
    """
    height, width = image.shape
    pixel = max(height * spacing[0], width * spacing[1]) / size
    return resample(image, spacing, pixel, size, padding), float(pixel)


def resample(
    image: FloatArray, spacing: tuple[float, float], pixel: float, size: int, padding: float = AIR
) -> FloatArray:
    """The middle of an image (H, W) in [-1, 1] as (size, size) with square pixels of side ``pixel`` in mm.

    What lies outside the matrix is cut off, what the image lacks is filled with ``padding``. Shrinking is preceded by a
    Gaussian, so that nothing aliases.
    """
    steps = np.asarray([pixel / spacing[0], pixel / spacing[1]])
    sigma = np.maximum(0.0, (steps - 1.0) / 2.0)
    smooth = ndimage.gaussian_filter(image, sigma, mode="nearest") if sigma.any() else image
    # Pixel centres: output i of a side lies at centre + (i - (size - 1) / 2) · step of the input.
    centre = (np.asarray(image.shape) - 1) / 2
    offset = centre - steps * (size - 1) / 2
    resampled: FloatArray = ndimage.affine_transform(
        smooth, steps, offset, (size, size), output=np.float32, order=1, mode="nearest", prefilter=False
    )
    for axis, length in enumerate(image.shape):
        at = offset[axis] + steps[axis] * np.arange(size)
        outside = (at < -0.5 - 1e-6) | (at > length - 0.5 + 1e-6)
        resampled[outside if axis == 0 else (slice(None), outside)] = padding
    return np.asarray(np.clip(resampled, -1.0, 1.0), dtype=np.float32)
