"""Texture: compares the gradient strength of images, and their power in each octave of frequency, with real slices.

It detects images that are too smooth or too noisy, which can still have a good Fréchet distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

MOST = 256  # largest number of images of a side
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Texture:
    """Ratios of synthetic to real images; 1 is ideal."""

    gradient: float  # mean strength of the gradient
    octaves: tuple[float, ...]  # mean power of each octave of spatial frequency, coarse to fine
    against: str  # name of the real slices
    images: int
    slices: int
    training: Texture | None = None  # training slices against the same real slices, if those are held out


def compare_texture(synthetic: FloatArray, real: FloatArray, against: str) -> Texture:
    """Compare the texture of images ``(N, H, W)`` with that of ``(M, H, W)``, both in [-1, 1].

    Raises `MedvarError` when one side is empty or the sizes differ.
    """
    if not len(synthetic) or not len(real) or synthetic.shape[1:] != real.shape[1:]:
        raise MedvarError(f"Textures of images {synthetic.shape} and slices {real.shape} cannot be compared.")
    ratios = octave_power(synthetic) / np.maximum(octave_power(real), 1e-12)
    gradient = gradient_strength(synthetic) / max(gradient_strength(real), 1e-12)
    return Texture(gradient, tuple(map(float, ratios)), against, len(synthetic), len(real))


def gradient_strength(images: FloatArray) -> float:
    """Mean length of the gradient of images ``(N, H, W)``, from differences of neighbouring pixels."""
    down, right = np.diff(images, axis=1)[:, :, :-1], np.diff(images, axis=2)[:, :-1]
    return float(np.hypot(down, right).mean(dtype=np.float64))


def octave_power(images: FloatArray) -> _Doubles:
    """Mean power of images ``(N, H, W)`` per octave of radial frequency up to Nyquist's, from coarse to fine.

    The coarsest octave begins at one period per image.
    """
    height, width = images.shape[1:]
    power = np.mean([np.abs(np.fft.fft2(image.astype(np.float64))) ** 2 for image in images], axis=0)
    radius = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width) * width)  # periods per image
    octaves = int(np.log2(min(height, width) / 2))
    found = [power[(radius >= 2**i) & (radius < 2 ** (i + 1))].mean() for i in range(octaves)]
    return np.array(found) / (height * width)
