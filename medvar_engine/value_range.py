"""What pixels in [-1, 1] stand for: values in a unit (`Display`), and 16-bit integers on the disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray


@dataclass(frozen=True, slots=True)
class Display:
    """The value of a pixel of -1 and of one of +1, their unit, and the side of a pixel."""

    low: float = 0.0
    high: float = 1.0
    unit: str = "arbitrary"  # or "HU"
    spacing_mm: float | None = None  # None when not known

    def values(self, pixels: FloatArray) -> FloatArray:
        """Pixels in [-1, 1] → values in `unit`; what lies outside is clipped."""
        share = (np.clip(pixels, -1, 1) + 1) / np.float32(2)
        return np.asarray(self.low + share * np.float32(self.high - self.low), dtype=np.float32)


CodeArray = NDArray[np.uint16]


def encode(image: FloatArray) -> CodeArray:
    """[-1, 1] → uint16. Raises `MedvarError` when a value is not finite."""
    if not np.isfinite(image).all():
        raise MedvarError("A slice holds values that are not finite.")
    codes = np.clip(image, -1.0, 1.0).astype(np.float32, copy=False)
    codes += np.float32(1.0)
    codes *= np.float32(32767.5)
    return np.rint(codes, out=codes).astype(np.uint16)


def decode(codes: CodeArray) -> FloatArray:
    """uint16 → [-1, 1]; within 1.6e-5 of what was encoded."""
    image = np.array(codes, dtype=np.float32)
    image *= np.float32(1.0 / 32767.5)
    image -= np.float32(1.0)
    return image
