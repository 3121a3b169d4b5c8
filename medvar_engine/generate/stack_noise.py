"""Noise of the slices of a stack: each slice's is Gumbel noise as always, and neighbours' are alike.

Every slice has noise of its own. What a slice is drawn with is a weighted mean of its own and its neighbours', as
Gaussian numbers, whose weights have the sum of squares 1: Gaussian again, and so, turned back, Gumbel again. Each slice
is therefore drawn from the model's own distribution, and what two slices have in common falls with their distance.

How far noise reaches follows from the size of a token: a token that covers 20 mm of the image shows what goes on for
about as far through the plane, too. So coarse scales hardly change from slice to slice, and fine ones do.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from medvar_engine.generate.sampling import uniform_of_slice
from medvar_engine.request import StackPlace
from medvar_engine.types import FloatArray

REACH = 0.5  # standard deviation of the weights through the plane, as a share of the side of a token
_WIDEST = 16.0  # slices, of that deviation: beyond it all slices of a stack are alike anyway
_CUT = 2.5  # deviations after which weights are left out


def stack_noise(seed: int, place: StackPlace, k: int, side: int, vocabulary: int) -> FloatArray:
    """Standard Gumbel noise ``(side², V)`` of scale k, of ``side`` tokens a side, for one slice of a stack."""
    deviation = min(REACH / (side * place.step), _WIDEST)
    reach = int(_CUT * deviation)
    distances = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (distances / max(deviation, 1e-6)) ** 2)
    weights /= np.sqrt((weights**2).sum())
    total = np.zeros((side * side, vocabulary))
    for distance, weight in zip(distances.tolist(), weights.tolist(), strict=True):
        own = uniform_of_slice(seed, k, place.slice + reach + distance, side * side, vocabulary)
        total += weight * ndtri(own.astype(np.float64))
    share = np.clip(ndtr(total), 1e-12, 1 - 1e-12)
    noise: FloatArray = (-np.log(-np.log(share))).astype(np.float32)
    return noise
