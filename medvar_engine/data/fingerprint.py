"""A perceptual fingerprint of a slice: near-duplicates have fingerprints that differ in few bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from medvar_engine.data.volume import FloatArray

BITS = 256
_SIDE = 16


def fingerprint(image: FloatArray) -> bytes:
    """The difference hash of an image (H, W) in [-1, 1]: 256 bits, does each of 16×17 cells brighten to its right?

    It is the same for the same picture in another window or size, nearly.
    """
    small = Image.fromarray(np.asarray(image, dtype=np.float32)).resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    cells = np.asarray(small)
    return np.packbits(cells[:, 1:] > cells[:, :-1] + 1e-3).tobytes()


def distance(first: bytes, second: bytes) -> int:
    """In how many of the 256 bits two fingerprints differ."""
    return (int.from_bytes(first) ^ int.from_bytes(second)).bit_count()
