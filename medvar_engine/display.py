"""`Display`: what the pixels of an image stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvar_engine.arrays import FloatArray


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
