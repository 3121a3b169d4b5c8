"""Noise of the slices of a stack: each slice's is Gumbel noise as always, and neighbours' are alike.

Noise turns slowly from one independent draw into the next: as Gaussian numbers, the mean of two draws with weights
``cos`` and ``sin`` of an angle that grows from slice to slice. The sum of their squares is 1, so that the mean is
Gaussian again, and so, turned back, Gumbel again. Each slice is therefore drawn from the model's own distribution, and
what two slices have in common falls with their distance.

How fast noise turns follows from the size of a token: a token that covers 20 mm of the image shows what goes on for
some such lengths through the plane, too. So coarse scales hardly change from slice to slice, and fine ones do.
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
    """Standard Gumbel noise ``(side², V)`` of scale k, of ``side`` tokens a side, for one slice of a stack."""
    way, draw = math.modf(place.slice * side * place.step / REACH)
    angle = way * math.pi / 2
    total = np.zeros((side * side, vocabulary))
    for number, weight in enumerate((math.cos(angle), math.sin(angle)), int(draw)):
        uniform = uniform_of_slice(seed, k, number, side * side, vocabulary).astype(np.float64)
        total += weight * ndtri(uniform)
    share = np.clip(ndtr(total), 1e-12, 1 - 1e-12)
    noise: FloatArray = (-np.log(-np.log(share))).astype(np.float32)
    return noise
