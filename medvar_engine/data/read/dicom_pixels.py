"""Converts stored pixels of DICOM frames to values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.read.dicom_stored import StoredPixels
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray


def measured(pixels: NDArray[np.integer], stored: StoredPixels, slope: float, intercept: float) -> FloatArray:
    """Convert stored pixels to values; padding becomes NaN.

    HU do not depend on the display polarity; MR in MONOCHROME1 is inverted, so that bright means high.
    """
    values = pixels.astype(np.float64)  # rounded once, at the end
    empty = padding(stored, pixels)
    if empty is not None:
        values[empty] = np.nan  # padding is not image data, so the scale does not apply
    if stored.inverted:
        values = (-1.0 if stored.signed else 2.0**stored.bits_stored - 1.0) - values
    with np.errstate(over="ignore", invalid="ignore"):
        values *= slope
        values += intercept
        return values.astype(np.float32)


def padding(stored: StoredPixels, pixels: NDArray[np.integer]) -> NDArray[np.bool_] | None:
    """Which stored pixels are padding, by Pixel Padding Value and Range Limit (PS3.3 C.7.5.1.1.2); None without it.

    Values are compared as words, because many files store a signed value in the unsigned representation.
    """
    if stored.padding is None:
        return None
    low, high = sorted(_as_stored(value, stored) for value in stored.padding)
    return np.asarray((pixels >= low) & (pixels <= high))


def fill_padding(path: Path, frames: FloatArray) -> None:
    """Replace padding by the lowest value of all frames, as background."""
    empty = np.isnan(frames)
    if empty.all():
        raise MedvarError(f"{path}: all pixels have the PixelPaddingValue: there is no image.")
    if empty.any():
        frames[empty] = np.nanmin(frames)


def _as_stored(value: int, stored: StoredPixels) -> int:
    word = value % 2**stored.bits_allocated
    return word - 2**stored.bits_allocated if stored.signed and word >= 2 ** (stored.bits_allocated - 1) else word
