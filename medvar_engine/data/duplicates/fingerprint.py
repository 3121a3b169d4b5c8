"""Perceptual fingerprints of slices; those of near-duplicates differ in few bits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import sparse  # type: ignore[import-untyped]

from medvar_engine.types import FloatArray

BITS = 256
_SIDE = 16


def fingerprint(image: FloatArray) -> bytes:
    """The difference hash of an image (H, W) in [-1, 1]: 256 bits from 16×17 cells, set if the right one is brighter.

    It is nearly the same for the same image in another window or size.
    """
    return fingerprints(image[np.newaxis])[0]


def fingerprints(images: FloatArray) -> list[bytes]:
    """The fingerprints of images (N, H, W)."""
    count, height, width = images.shape
    lines = np.ascontiguousarray(images.transpose(1, 2, 0), dtype=np.float32).reshape(height, width * count)
    flat = (_means(height, _SIDE) @ lines).reshape(_SIDE, width, count)
    turned = np.ascontiguousarray(flat.transpose(1, 2, 0)).reshape(width, count * _SIDE)
    cells = (_means(width, _SIDE + 1) @ turned).reshape(_SIDE + 1, count, _SIDE)
    brightens = (cells[1:] > cells[:-1] + np.float32(1e-3)).transpose(1, 2, 0).reshape(count, BITS)
    return [bits.tobytes() for bits in np.packbits(brightens, axis=1)]


def distance(first: bytes, second: bytes) -> int:
    """The number of the 256 bits in which two fingerprints differ."""
    return (int.from_bytes(first) ^ int.from_bytes(second)).bit_count()


@lru_cache(maxsize=64)
def _means(length: int, cells: int) -> sparse.csr_array:
    """Weights (cells, length) from a line of pixels to cells, measured from Pillow's box filter with unit impulses."""
    lines = Image.fromarray(np.eye(length, dtype=np.float32))
    return sparse.csr_array(np.asarray(lines.resize((length, cells), Image.Resampling.BOX)))
