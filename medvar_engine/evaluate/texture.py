"""Whether images have the detail of real ones: strength of their edges, and power in each octave of frequencies.

A model whose images are smooth, or grainy, can have a good Fréchet distance; here it shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

MOST = 256  # images of a side that are looked at
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Texture:
    """Ratios of synthetic to real images; 1 is right."""

    gradient: float  # mean strength of the gradient
    octaves: tuple[float, ...]  # mean power of each octave of spatial frequency, coarse to fine
    against: str  # which real slices
    images: int
    slices: int


def compare_texture(synthetic: FloatArray, real: FloatArray, against: str) -> Texture:
    """Texture of ``(N, H, W)`` against that of ``(M, H, W)``, both in [-1, 1].

    Raises `MedvarError` when one of them is empty or they are of different size.
    """
    if not len(synthetic) or not len(real) or synthetic.shape[1:] != real.shape[1:]:
        raise MedvarError(f"Textures of images {synthetic.shape} and slices {real.shape} cannot be compared.")
    ratios = octave_power(synthetic) / np.maximum(octave_power(real), 1e-12)
    gradient = gradient_strength(synthetic) / max(gradient_strength(real), 1e-12)
    return Texture(gradient, tuple(map(float, ratios)), against, len(synthetic), len(real))


def gradient_strength(images: FloatArray) -> float:
    """Mean length of the gradient of ``(N, H, W)``, by differences of neighbouring pixels."""
    down, right = np.diff(images, axis=1)[:, :, :-1], np.diff(images, axis=2)[:, :-1]
    return float(np.hypot(down, right).mean(dtype=np.float64))


def octave_power(images: FloatArray) -> _Doubles:
    """Mean power of ``(N, H, W)`` at frequencies of each octave up to Nyquist's, coarse to fine.

    Radial: a frequency's direction does not count. The coarsest octave begins at one period an image.
    """
    height, width = images.shape[1:]
    power = np.mean([np.abs(np.fft.fft2(image.astype(np.float64))) ** 2 for image in images], axis=0)
    radius = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width) * width)  # periods an image
    octaves = int(np.log2(min(height, width) / 2))
    found = [power[(radius >= 2**i) & (radius < 2 ** (i + 1))].mean() for i in range(octaves)]
    return np.array(found) / (height * width)
