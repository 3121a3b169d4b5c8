"""`DescriptorEncoder`: a fixed, hand-made description of a slice, which needs neither weights nor training data.

Why this one beside SimCLR: SimCLR is trained *not* to notice blur, noise, contrast and place, and knows only the user's
data. The descriptor notices just these, knows no data, and each of its numbers can be named. What one is blind to, the
other sees. In the tradition of oriented-gradient descriptors (Dalal & Triggs, CVPR 2005) and of texture as band
energies (Portilla & Simoncelli, IJCV 2000).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medvar_engine.encoders.preprocessing import Preprocessing
from medvar_engine.storage import sha256_of
from medvar_engine.types import FloatArray

SIZE = 128  # pixels a side at which images are described
SCALES = 4  # halvings of the resolution, the finest first
ORIENTATIONS = 4  # of gradients, modulo 180°
CELLS = 2  # a side, in which gradients are averaged
BRIGHTNESS_CELLS = 4  # a side, in which intensities are averaged
HISTOGRAM_BINS = 16
_VERSION = 1
_FLOOR = 1e-3  # gradients far below this are nothing, and their logarithm must not be large


class DescriptorEncoder:
    """96 features: 64 logarithms of gradient strength (scale × orientation × quarter), 16 brightnesses, 16 bins.

    Strengths at the finest scale fall when an image is blurred and rise with noise or a decoder's grid; orientations
    and quarters follow anatomy; brightnesses its rough layout; the histogram the window.
    """

    name = "descriptor"
    dimension = SCALES * ORIENTATIONS * CELLS**2 + BRIGHTNESS_CELLS**2 + HISTOGRAM_BINS

    def __init__(self) -> None:
        self.preprocessing = Preprocessing(SIZE, "area", mean=(0.0,), std=(1.0,))
        settings = (_VERSION, SIZE, SCALES, ORIENTATIONS, CELLS, BRIGHTNESS_CELLS, HISTOGRAM_BINS, _FLOOR)
        self.sha256 = sha256_of(f"{self.name} {settings}")

    def encode(self, images: FloatArray) -> FloatArray:
        """See `Encoder`."""
        described = [_describe(image) for image in self.preprocessing(images)[:, 0]]
        return np.array(described, dtype=np.float32).reshape(len(images), self.dimension)

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "dimension": self.dimension,
            "preprocessing": self.preprocessing.to_dict(),
        }


def _describe(image: FloatArray) -> FloatArray:
    """``(SIZE, SIZE)`` in [0, 1] → the features of one image."""
    parts, scaled = [], image
    for _ in range(SCALES):
        parts.append(_strengths(scaled))
        scaled = _average(scaled, len(scaled) // 2)
    parts.append(_average(image, BRIGHTNESS_CELLS))
    counts, _ = np.histogram(np.clip(image, 0, 1), bins=HISTOGRAM_BINS, range=(0, 1))
    parts.append(np.sqrt(counts / image.size))
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)


def _strengths(image: FloatArray) -> FloatArray:
    """Mean gradient strength by orientation and cell, as a logarithm: ``(ORIENTATIONS, CELLS, CELLS)``.

    A gradient between two orientations counts for both, in parts, so that a small rotation changes little.
    """
    down, right = np.gradient(image)
    strength = np.hypot(down, right)
    place = np.arctan2(down, right) / np.pi * ORIENTATIONS  # 180° are ORIENTATIONS steps
    bins = np.arange(ORIENTATIONS)[:, None, None]
    away = np.abs((place - bins + ORIENTATIONS / 2) % ORIENTATIONS - ORIENTATIONS / 2)
    shares = np.maximum(0, 1 - away) * strength
    return np.log(_FLOOR + np.stack([_average(share, CELLS) for share in shares]))


def _average(image: FloatArray, cells: int) -> FloatArray:
    """Means over a grid of cells: ``(H, H)`` → ``(cells, cells)``."""
    side = len(image) // cells
    return np.asarray(image.reshape(cells, side, cells, side).mean(axis=(1, 3)))
