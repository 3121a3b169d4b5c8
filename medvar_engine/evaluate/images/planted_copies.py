"""Copies that are planted to see whether they are found: training slices, changed as a model may change them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from medvar_engine.types import FloatArray

MAX_SHIFT = 0.06  # share of the side
MAX_CENTRE = 0.2  # of the window, in halves of the range of values
MAX_WIDTH = 0.3  # ± exponent: windows of 0.74…1.35 times the width
NOISE = 0.04  # standard deviation, in [-1, 1]
BLUR = 1 / 128  # standard deviation as a share of the side: one pixel in 128

Change = Callable[[FloatArray, np.random.Generator], FloatArray]


def same(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The slice itself."""
    return image


def mirrored(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Left and right, up and down, or both exchanged."""
    return np.flip(image, ((0,), (1,), (0, 1))[rng.integers(3)])


def shifted(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """By up to `MAX_SHIFT` each way, by parts of pixels too; air comes in at the sides."""
    shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * image.shape
    return np.asarray(ndimage.shift(image, shift, order=1, cval=-1.0), dtype=np.float32)


def rewindowed(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Shown in a window of another centre and width; what falls outside is clipped."""
    centre, width = rng.uniform(-MAX_CENTRE, MAX_CENTRE), np.exp(rng.uniform(-MAX_WIDTH, MAX_WIDTH))
    return np.clip((image - np.float32(centre)) * np.float32(width), -1, 1)


def noisy(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """With white noise."""
    return np.clip(image + rng.normal(0, NOISE, image.shape).astype(np.float32), -1, 1)


def blurred(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """As a decoder blurs."""
    return np.asarray(ndimage.gaussian_filter(image, BLUR * len(image)), dtype=np.float32)


def all_of_it(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Every change at once."""
    for change in (mirrored, shifted, rewindowed, noisy, blurred):
        image = change(image, rng)
    return image


COPIES: dict[str, Change] = {
    "same": same,
    "mirrored": mirrored,
    "shifted": shifted,
    "rewindowed": rewindowed,
    "noisy": noisy,
    "blurred": blurred,
    "all of it": all_of_it,
}
"""Kinds of copy by name."""


def plant(images: FloatArray, kind: str, seed: int) -> FloatArray:
    """``(N, H, W)`` → the same, changed as ``kind`` of `COPIES` says, each with a draw of its own."""
    change = COPIES[kind]
    changed = [change(image, np.random.default_rng((seed, number))) for number, image in enumerate(images)]
    return np.array(changed, dtype=np.float32).reshape(images.shape)
