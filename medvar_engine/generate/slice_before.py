"""Slices of a stack: each is drawn near the slice before it.

The code of a token changes through the plane like a Gauss-Markov process: at a distance of d sides of the token, its
correlation is ``ρ = exp(-d / REACH)``. If the slice before needs a code y at some position, the probability of a code c
there is multiplied by ``exp(-w·‖c - y‖² / 2σ²)``, where ``w = ρ² / (1 - ρ²)`` and σ² is the mean of ‖c‖² over the
codes: the components of a code count together, not as independent values, which would count C times as much. (Exactly,
y is divided by ρ, which matters only where w is small.) The transformer remains the prior: it says what is plausible at
the position of the slice, and the slice before says which body it is.

The code that the slice before needs is the residual of its latent after the scales that are already drawn, as in
encoding. A difference in a coarse scale is therefore compensated by finer scales, and does not continue through the
stack. Because d is in sides of a token, coarse scales hardly change from slice to slice, and fine ones do.
"""

from __future__ import annotations

import math

import numpy as np

from medvar_engine.backends.base import BackendInfo
from medvar_engine.errors import MedvarError
from medvar_engine.tokens.area import area_weights
from medvar_engine.tokens.codebook import codes_of_scale
from medvar_engine.types import FloatArray

REACH = 1.1
"""Sides of a token through the plane after which the correlation of its code has fallen to 1/e.

The likelihood of neighbouring slices of real volumes is highest at 0.6. Guidance makes the transformer count for more,
so that more is needed: with this value, neighbours differ on average as much as those of real volumes do.
"""


def distance_penalty(
    info: BackendInfo, codebook: FloatArray, k: int, step: float, before: FloatArray, latent: FloatArray
) -> FloatArray:
    """What the slice before subtracts from the logits of scale k: ``(L_k, V)``, not negative.

    Args:
        info: the model.
        codebook: see `Backend.codebook`.
        k: the scale that is drawn.
        step: distance of the slices, as a share of the image's side.
        before: latent of the slice before after all its scales, ``(C, side, side)``.
        latent: latent of this slice so far, ``(C, side, side)``.
    """
    side, codes = info.schedule[k], codes_of_scale(codebook, k)
    missing = before - latent
    # A tokenizer of resolutions has a codebook for each scale; its latent is a folded image.
    needed = _blocks(missing, info, side) if codebook.ndim == 3 else _pooled(missing, side).reshape(len(missing), -1).T
    squares = (codes**2).sum(1)
    distances = (needed**2).sum(1)[:, None] - 2 * needed @ codes.T + squares
    weight = 1 / math.expm1(2 * step * side / REACH)
    penalty: FloatArray = np.maximum(distances, 0) * np.float32(weight / (2 * max(float(squares.mean()), 1e-12)))
    return penalty


def _blocks(latent: FloatArray, info: BackendInfo, side: int) -> FloatArray:
    """A folded image ``(C, side, side)`` at the resolution of a scale, one block of pixels per token: ``(L_k, C)``."""
    full = info.schedule.latent_side
    patch = info.image_size // full
    if not patch or patch * full != info.image_size or len(latent) % patch**2:
        raise MedvarError(
            f"The codebook of this model is that of a pyramid of images, but its latent of {len(latent)} channels and "
            f"{full}×{full} is no folded image of {info.image_size} pixels, so it cannot draw stacks. Export it again."
        )
    unfolded = latent.reshape(-1, patch, patch, full, full).transpose(0, 3, 1, 4, 2)
    image = _pooled(unfolded.reshape(-1, full * patch, full * patch), side * patch)
    blocks = image.reshape(-1, side, patch, side, patch).transpose(1, 3, 0, 2, 4)
    return blocks.reshape(side * side, -1)


def _pooled(values: FloatArray, side: int) -> FloatArray:
    """``(C, H, H)`` averaged to ``(C, side, side)``."""
    matrix = area_weights(values.shape[-1], side)
    return np.asarray(matrix @ values @ matrix.T, dtype=np.float32)
