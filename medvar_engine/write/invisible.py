"""An invisible mark: a public pattern of half a grey level that can be detected by correlation.

It is a spread-spectrum watermark (Cox et al., IEEE Trans. Image Processing 1997): a known noise pattern of fine and
middle frequencies is added, and detected by its correlation with the image. The mark survives 8 bits, DICOM and
windowing, which keep the positions of pixels; rotation, scaling and cropping remove it. The pattern is public: the mark
helps to find synthetic images, but does not prevent its removal.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats

from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

AMPLITUDE = 0.5  # root mean square, in 8-bit grey levels
FOUND = 3.0  # threshold of the score; scores without the mark are about normal, with a standard deviation below 1
_SEED = 0x4D454456  # of the pattern
_BAND = (0.2, 0.45)  # cycles per pixel
_SMALLEST = 32  # pixels per side; smaller images have too few pixels for detection
_SMOOTH = 0.6  # standard deviation in pixels of the filter that removes anatomy
_STEP = 1024  # patterns are rounded, so that they are the same on all machines
_FLOOR = 0.004  # fraction of an image's range: the rounding error of 8 bits


def add_mark(pixels: FloatArray) -> FloatArray:
    """Add the mark to an image ``(H, W)`` in [-1, 1]. Raises `MedvarError` for an image that is too small."""
    shape = pixels.shape
    if len(shape) != 2 or min(shape) < _SMALLEST:
        raise MedvarError(
            f"The invisible mark needs images of at least {_SMALLEST} pixels per side, but the shape is {shape}."
        )
    return np.clip(pixels + _pattern(shape) * np.float32(AMPLITUDE / 127.5), -1, 1)


def mark_score(values: npt.NDArray[np.generic]) -> float:
    """The detection score of the mark in a grey image ``(H, W)`` in any unit; above `FOUND` the mark is present.

    0 for an image that is too small or almost constant.
    """
    image = np.asarray(values, dtype=np.float64)
    low, high = image.min(initial=0), image.max(initial=0)
    if image.ndim != 2 or min(image.shape) < _SMALLEST or not np.isfinite([low, high]).all():
        return 0.0
    low, high = image.min(), image.max()
    inside = (image > low) & (image < high)  # clipped pixels carry no information
    if inside.sum() < _SMALLEST**2 / 4:
        return 0.0
    fine = _fine((image - low) / (high - low))
    # Regions with strong fine anatomy hide the mark, so they get a lower weight.
    weighted = fine * inside / (ndimage.gaussian_filter(fine**2, 2.0) + _FLOOR**2 / 4)
    pattern = _fine(_pattern(image.shape).astype(np.float64))
    return float((weighted * pattern).sum() / np.sqrt((weighted**2).sum() * (pattern[inside] ** 2).mean() + 1e-30))


def threshold_of(slices: int) -> float:
    """The threshold for each of several slices: by chance, one of them is above it as rarely as a single image."""
    return float(stats.norm.isf(stats.norm.sf(FOUND) / slices))


def _fine(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(image - ndimage.gaussian_filter(image, _SMOOTH))


@lru_cache(maxsize=8)
def _pattern(shape: tuple[int, ...]) -> FloatArray:
    """Noise of the frequency band with mean square 1."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    frequency = np.hypot(rows, columns)
    inside = (frequency > _BAND[0]) & (frequency < _BAND[1])
    noise = np.fft.irfft2(np.fft.rfft2(np.random.default_rng(_SEED).standard_normal(shape)) * inside, s=shape)
    return np.asarray(np.rint(noise / noise.std() * _STEP) / _STEP, dtype=np.float32)
