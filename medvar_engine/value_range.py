"""Conversion between pixels in [-1, 1] and values in a unit, fractions, 8-bit grey levels and 16-bit integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray


@dataclass(frozen=True, slots=True)
class Display:
    """The values that pixels of -1 and +1 stand for, their unit, and the pixel spacing."""

    low: float = 0.0
    high: float = 1.0
    unit: str = "arbitrary"  # "HU" or "arbitrary"
    spacing_mm: float | None = None  # mm per pixel; None if unknown

    def values(self, pixels: FloatArray) -> FloatArray:
        """Pixels in [-1, 1] → values in `unit`; pixels outside the range are clipped."""
        share = (np.clip(pixels, -1, 1) + 1) / np.float32(2)
        return np.asarray(self.low + share * np.float32(self.high - self.low), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The values that -1 and 1 of a harmonised image stand for; ``unit`` is ``"HU"`` or ``"arbitrary"``."""

    low: float
    high: float
    unit: str

    def to_image(self, values: FloatArray) -> FloatArray:
        """Values → pixels in [-1, 1]; values outside low…high are clipped."""
        scaled = np.asarray(np.subtract(values, np.float32(self.low), dtype=np.float32))
        scaled *= np.float32(2.0 / (self.high - self.low))
        scaled -= np.float32(1.0)
        return np.clip(scaled, -1.0, 1.0, out=scaled)

    def to_values(self, image: FloatArray) -> FloatArray:
        """Pixels in [-1, 1] → values; the inverse of `to_image` inside low…high."""
        return np.asarray((image + 1.0) * ((self.high - self.low) / 2.0) + self.low, dtype=np.float32)


def shares(pixels: FloatArray) -> NDArray[np.float64]:
    """Pixels in [-1, 1] → fractions of the range, from 0 at -1 to 1 at +1; pixels outside are clipped."""
    return np.asarray((np.clip(pixels, -1, 1).astype(np.float64) + 1) / 2)


def grey_levels(pixels: FloatArray) -> NDArray[np.uint8]:
    """Pixels in [-1, 1] → 8-bit grey levels: -1 is black, +1 white; pixels outside are clipped."""
    return np.asarray(np.rint((np.clip(pixels, -1, 1) + 1) * 127.5), dtype=np.uint8)


CodeArray = NDArray[np.uint16]


def encode(image: FloatArray) -> CodeArray:
    """Pixels in [-1, 1] → uint16. Raises `MedvarError` when a value is not finite."""
    if not np.isfinite(image).all():
        raise MedvarError("A slice contains values that are not finite.")
    codes = np.clip(image, -1.0, 1.0).astype(np.float32, copy=False)
    codes += np.float32(1.0)
    codes *= np.float32(32767.5)
    return np.rint(codes, out=codes).astype(np.uint16)


def decode(codes: CodeArray) -> FloatArray:
    """uint16 → pixels in [-1, 1], within 1.6e-5 of the encoded values."""
    image = np.array(codes, dtype=np.float32)
    image *= np.float32(1.0 / 32767.5)
    image -= np.float32(1.0)
    return image
