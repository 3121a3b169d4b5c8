"""Make scans comparable: an HU window for CT, a clipped histogram for MR, one matrix with square pixels for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from medvar_engine.data.volume import FloatArray
from medvar_engine.errors import MedvarError


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The values that -1 and 1 of a harmonised image stand for; ``unit`` is ``"HU"`` or ``"arbitrary"``."""

    low: float
    high: float
    unit: str

    def to_image(self, values: FloatArray) -> FloatArray:
        """Values → [-1, 1]; what lies outside low…high is clipped."""
        scaled = (values.astype(np.float32) - np.float32(self.low)) * np.float32(2.0 / (self.high - self.low)) - 1.0
        return np.asarray(np.clip(scaled, -1.0, 1.0), dtype=np.float32)

    def to_values(self, image: FloatArray) -> FloatArray:
        """[-1, 1] → values; the inverse of `to_image` inside low…high."""
        return np.asarray((image + 1.0) * ((self.high - self.low) / 2.0) + self.low, dtype=np.float32)


CT_WINDOWS = {
    "soft_tissue": (40.0, 400.0),
    "mediastinum": (50.0, 350.0),
    "lung": (-600.0, 1500.0),
    "chest": (-300.0, 1400.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "angiography": (200.0, 800.0),
}
"""Name → (centre, width) in HU. ``chest`` shows lung and soft tissue at once, and air as black as the padding."""

REGION_WINDOW = {
    "abdomen": "soft_tissue",
    "chest": "chest",
    "heart": "angiography",
    "brain": "brain",
    "prostate": "soft_tissue",
    "spine": "bone",
}
"""Region → the window used when none is asked for."""

MR_PERCENTILES = (0.5, 99.5)


def ct_window(name: str) -> ValueRange:
    """The HU range of a named window. Raises `MedvarError` listing the names."""
    if name not in CT_WINDOWS:
        raise MedvarError(f"Unknown CT window {name!r}; the windows are {', '.join(CT_WINDOWS)}.")
    centre, width = CT_WINDOWS[name]
    return ValueRange(centre - width / 2, centre + width / 2, "HU")


def window_ct(
    hu: FloatArray, window: str | None = None, *, low: float | None = None, high: float | None = None
) -> tuple[FloatArray, ValueRange]:
    """HU → [-1, 1] by a named window (default ``soft_tissue``), or by ``low`` and ``high`` in HU.

    >>> image, values = window_ct(np.float32([-1000, 40, 3000]), "soft_tissue")
    >>> image.tolist(), values.low, values.high
    ([-1.0, 0.0, 1.0], -160.0, 240.0)
    """
    if low is None and high is None:
        values = ct_window(window or "soft_tissue")
    elif window is not None or low is None or high is None or not low < high:
        raise MedvarError(f"A CT window is a name, or low < high in HU; got {window=}, {low=}, {high=}.")
    else:
        values = ValueRange(float(low), float(high), "HU")
    return values.to_image(hu), values


def mr_foreground(array: FloatArray) -> float:
    """The value above which a voxel is tissue, not noise: 5 % of the way from the minimum to the 99th percentile."""
    low, high = float(array.min()), float(np.percentile(array, 99))
    return low + 0.05 * (high - low)


def clip_mr(array: FloatArray, percentiles: tuple[float, float] = MR_PERCENTILES) -> tuple[FloatArray, ValueRange]:
    """MR → [-1, 1] by the percentiles of the foreground of the whole volume (a clipped histogram)."""
    foreground = array[array > mr_foreground(array)]
    if foreground.size == 0 or foreground.min() == foreground.max():
        raise MedvarError("The scan is blank: all voxels have the same value.")
    low, high = (float(value) for value in np.percentile(foreground, percentiles))
    if not low < high:
        low, high = float(foreground.min()), float(foreground.max())
    values = ValueRange(low, high, "arbitrary")
    return values.to_image(array), values


def fit_to_matrix(image: FloatArray, spacing: tuple[float, float], size: int) -> tuple[FloatArray, float]:
    """Resample an image (H, W) in [-1, 1] to (size, size) with square pixels; gives it and its pixel size in mm.

    ``spacing`` is the pixel size in mm of rows and columns. The longer side fills the matrix, the shorter one is
    centred and padded with -1. Shrinking is preceded by a Gaussian, so that nothing aliases.
    """
    height, width = image.shape
    pixel = max(height * spacing[0], width * spacing[1]) / size
    steps = np.asarray([pixel / spacing[0], pixel / spacing[1]])
    sigma = np.maximum(0.0, (steps - 1.0) / 2.0)
    smooth = ndimage.gaussian_filter(image, sigma, mode="nearest") if sigma.any() else image
    # Pixel centres: output i of a side lies at centre + (i - (size - 1) / 2) · step of the input.
    centre = (np.asarray(image.shape) - 1) / 2
    offset = centre - steps * (size - 1) / 2
    fitted: FloatArray = ndimage.affine_transform(
        smooth, steps, offset, (size, size), output=np.float32, order=1, mode="nearest", prefilter=False
    )
    for axis, length in enumerate(image.shape):
        at = offset[axis] + steps[axis] * np.arange(size)
        outside = (at < -0.5 - 1e-6) | (at > length - 0.5 + 1e-6)
        fitted[outside if axis == 0 else (slice(None), outside)] = -1.0
    return np.clip(fitted, -1.0, 1.0), float(pixel)
