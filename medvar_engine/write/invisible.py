"""An invisible mark: a pattern of half a gray level that everybody can look for, and nobody sees.

Spread spectrum (Cox et al., IEEE Trans. Image Processing 1997): noise of fine and middle frequencies, known beforehand,
is added; the sum of its products with the image tells whether it is there. It outlasts 8 bits, DICOM and windows, which
keep each pixel where it is; turning, scaling and cropping lose it. The pattern is public: the mark finds synthetic
images among others, and keeps nobody from removing it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

AMPLITUDE = 0.5  # root mean square, in gray levels of 8 bits
FOUND = 3.0  # scores of images without the mark are about normal, of a standard deviation below 1
_SEED = 0x4D454456  # of the pattern
_BAND = (0.2, 0.45)  # cycles a pixel
_SMALLEST = 32  # pixels a side; below, there is too little to sum up
_SMOOTH = 0.6  # pixels; what is coarser is anatomy
_STEP = 1024  # patterns are rounded, so that they are the same whatever computes them
_FLOOR = 0.004  # of an image's range: what 8 bits round away


def add_mark(pixels: FloatArray) -> FloatArray:
    """``(H, W)`` in [-1, 1] → the same with the mark. Raises `MedvarError` for an image too small to bear it."""
    shape = pixels.shape
    if len(shape) != 2 or min(shape) < _SMALLEST:
        raise MedvarError(f"The invisible mark takes images of {_SMALLEST} pixels a side or more, but got {shape}.")
    return np.clip(pixels + _pattern(shape) * np.float32(AMPLITUDE / 127.5), -1, 1)


def mark_score(values: npt.NDArray[np.generic]) -> float:
    """How surely the mark is in a gray image ``(H, W)`` in whatever unit: above `FOUND` it is.

    0 for an image that is too small, or nearly all of one value.
    """
    image = np.asarray(values, dtype=np.float64)
    low, high = image.min(initial=0), image.max(initial=0)
    if image.ndim != 2 or min(image.shape) < _SMALLEST or not np.isfinite([low, high]).all():
        return 0.0
    low, high = image.min(), image.max()
    inside = (image > low) & (image < high)  # what a window clipped says nothing
    if inside.sum() < _SMALLEST**2 / 4:
        return 0.0
    fine = _fine((image - low) / (high - low))
    # Where the anatomy itself is fine and strong it hides the mark, so it counts less.
    weighted = fine * inside / (ndimage.gaussian_filter(fine**2, 2.0) + _FLOOR**2 / 4)
    pattern = _fine(_pattern(image.shape).astype(np.float64))
    return float((weighted * pattern).sum() / np.sqrt((weighted**2).sum() * (pattern[inside] ** 2).mean() + 1e-30))


def _fine(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(image - ndimage.gaussian_filter(image, _SMOOTH))


@lru_cache(maxsize=8)
def _pattern(shape: tuple[int, ...]) -> FloatArray:
    """Noise of the band, of mean square 1."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    frequency = np.hypot(rows, columns)
    inside = (frequency > _BAND[0]) & (frequency < _BAND[1])
    noise = np.fft.irfft2(np.fft.rfft2(np.random.default_rng(_SEED).standard_normal(shape)) * inside, s=shape)
    return np.asarray(np.rint(noise / noise.std() * _STEP) / _STEP, dtype=np.float32)
