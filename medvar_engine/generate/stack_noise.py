"""Noise of the slices of a stack: every slice gets Gumbel noise, and the noise of neighbours is similar.

Noise changes slowly from one independent draw to the next: it is the sum of two draws of Gaussian numbers with weights
``cos`` and ``sin`` of an angle that grows from slice to slice. The squares of the weights sum to 1, so the result is
Gaussian, and is transformed to Gumbel noise. Each slice is therefore drawn from the distribution of the model, and the
similarity of two slices decreases with their distance.

The rate of change follows from the size of a token: what a token of 20 mm shows extends over about this length through
the plane, too. Coarse scales therefore hardly change from slice to slice, and fine ones do.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri

from medvar_engine.generate.sampling import uniform_of_slice
from medvar_engine.request import StackPlace
from medvar_engine.types import FloatArray

REACH = 3.0
"""Sides of a token through the plane, after which its noise is another draw.

Set with the model shipped first, so that neighbours differ about as much as those of real CT volumes.
"""


def stack_noise(seed: int, place: StackPlace, k: int, side: int, vocabulary: int) -> FloatArray:
    """Standard Gumbel noise ``(side², V)`` of scale k with ``side`` tokens per side, for one slice of a stack."""
    way, draw = math.modf(place.slice * side * place.step / REACH)
    angle = way * math.pi / 2
    total = np.zeros((side * side, vocabulary))
    for number, weight in enumerate((math.cos(angle), math.sin(angle)), int(draw)):
        uniform = uniform_of_slice(seed, k, number, side * side, vocabulary).astype(np.float64)
        total += weight * ndtri(uniform)
    share = np.clip(ndtr(total), 1e-12, 1 - 1e-12)
    noise: FloatArray = (-np.log(-np.log(share))).astype(np.float32)
    return noise
