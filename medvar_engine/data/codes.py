"""Slices as 16-bit integers: 0…65535 stand for -1…1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.volume import FloatArray
from medvar_engine.errors import MedvarError

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
