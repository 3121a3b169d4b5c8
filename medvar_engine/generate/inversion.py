"""Noise that explains given tokens, so that a real image can be drawn again under another condition.

Tokens are drawn by the Gumbel-max trick: noise is added to the logits, and the largest sum wins. Conversely, tokens and
logits determine the distribution of the noise. Drawing again with such noise, the same logits give the same tokens, and
other logits change only what is necessary (the idea of VARIN: inversion of next-scale models).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvar_engine.generate.sampling import candidates, gumbel
from medvar_engine.generate.trace import Trace
from medvar_engine.request import Request, Sampling
from medvar_engine.types import FloatArray, IntArray

# Smallest lead of the winner, in logits: rounding in another batch must not change the winner.
_MARGIN = 1e-3


@dataclass(frozen=True, eq=False, slots=True)
class Inversion:
    """The noise under which ``request`` gives the tokens of ``trace``.

    It follows from these two, and ``request.seed`` selects one of all possible values. It is never written to files.
    """

    trace: Trace
    request: Request
    noise: tuple[FloatArray, ...]  # (L_k, V) per scale

    def redraw(self, logits: FloatArray, sampling: Sampling, k: int) -> IntArray:
        """Tokens of scale k drawn with this noise: guided logits ``(L_k, V)`` → ``(L_k,)``."""
        if sampling.temperature == 0:
            likeliest: IntArray = logits.argmax(-1)
            return likeliest
        values = _eligible(logits, self.trace.pyramid.tokens(k)[0], sampling)
        drawn: IntArray = (values + self.noise[k]).argmax(-1)
        return drawn


def posterior_noise(logits: FloatArray, tokens: IntArray, sampling: Sampling, seed: int, k: int) -> FloatArray:
    """Gumbel noise ``(L, V)`` given that it makes ``logits`` ``(L, V)`` choose ``tokens`` ``(L,)``.

    The maximum of the noisy values has a Gumbel distribution, located at the logarithm of the sum of exponentials; the
    others are Gumbels truncated at the maximum (Maddison et al., arXiv 1411.0030): ``-log(exp(-largest) +
    exp(-value))``. ``sampling.temperature`` must not be 0.
    """
    values = _eligible(logits, tokens, sampling).astype(np.float64)
    noise = gumbel(seed, k, *logits.shape).astype(np.float64)
    chosen = np.arange(len(tokens)), tokens
    ceiling = np.logaddexp.reduce(values, axis=-1) + noise[chosen]
    below = -np.logaddexp(-ceiling[:, None], -(values + noise))
    able = np.isfinite(values)
    noise[able] = (below - np.where(able, values, 0))[able]
    # In units of noise as well as of logits: at a low temperature, little noise is little in logits.
    noise[chosen] = ceiling - values[chosen] + _MARGIN * max(1, 1 / sampling.temperature)
    return noise.astype(np.float32)


def _eligible(logits: FloatArray, tokens: IntArray, sampling: Sampling) -> FloatArray:
    """Logits over temperature ``(L, V)``, -inf where top-k and top-p exclude a token.

    The given ``tokens`` are never excluded: a real image contains tokens that the model would not draw.
    """
    scaled = logits / np.float32(sampling.temperature)
    kept, values = candidates(scaled, sampling.top_k, sampling.top_p)
    result = np.full_like(scaled, -np.inf)
    np.put_along_axis(result, kept, values, axis=-1)
    chosen = np.arange(len(tokens)), tokens
    result[chosen] = scaled[chosen]
    return result
