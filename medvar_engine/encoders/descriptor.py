"""`DescriptorEncoder`: fixed, hand-crafted features of a slice, without weights or training data.

It complements SimCLR, which is trained to be invariant to blur, noise, contrast and position and depends on the user's
data. The descriptor measures exactly these properties, depends on no data, and each of its features has a meaning. It
follows descriptors of oriented gradients (Dalal & Triggs, CVPR 2005) and of texture as band energies (Portilla &
Simoncelli, IJCV 2000).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medvar_engine.encoders.preprocessing import Preprocessing
from medvar_engine.storage import sha256_of
from medvar_engine.types import FloatArray

SIZE = 128  # pixels per side to which images are resized
SCALES = 4  # resolutions, each half of the one before, the finest first
ORIENTATIONS = 4  # orientations of gradients, modulo 180°
CELLS = 2  # cells per side in which gradients are averaged
BRIGHTNESS_CELLS = 4  # cells per side in which intensities are averaged
HISTOGRAM_BINS = 16
_VERSION = 1
_FLOOR = 1e-3  # added to gradient strengths before the logarithm, so that weak gradients give no large negative values


class DescriptorEncoder:
    """96 features: 64 log gradient strengths (scale × orientation × quadrant), 16 mean intensities, 16 histogram bins.

    Strengths at the finest scale decrease with blur and increase with noise or a decoder's grid pattern. Orientations
    and quadrants reflect anatomy, mean intensities the rough layout, and the histogram the window.
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
    """The features of one image ``(SIZE, SIZE)`` in [0, 1]."""
    parts, scaled = [], image
    for _ in range(SCALES):
        parts.append(_strengths(scaled))
        scaled = _average(scaled, len(scaled) // 2)
    parts.append(_average(image, BRIGHTNESS_CELLS))
    counts, _ = np.histogram(np.clip(image, 0, 1), bins=HISTOGRAM_BINS, range=(0, 1))
    parts.append(np.sqrt(counts / image.size))
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)


def _strengths(image: FloatArray) -> FloatArray:
    """The logarithm of the mean gradient strength by orientation and cell: ``(ORIENTATIONS, CELLS, CELLS)``.

    A gradient between two orientations is divided between both, so that a small rotation changes little.
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
