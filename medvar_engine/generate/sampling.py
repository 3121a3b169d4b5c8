"""From logits to tokens: guidance, temperature, top-k, top-p, and noise that depends on its position only.

The noise of a token depends only on (seed, scale, position). An image therefore does not depend on its batch or on the
backend.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medvar_engine.request import PLAUSIBLE, Sampling, check_seed
from medvar_engine.types import FloatArray, IntArray

_FAR_BELOW = 64  # nats from the likeliest token to implausible ones: they are hardly ever drawn, even at temperature 3


def gumbel(seed: int, k: int, positions: int, vocabulary: int) -> FloatArray:
    """Standard Gumbel noise ``(positions, vocabulary)`` of scale ``k``.

    Counter-based (Philox-4×64, Salmon et al. 2011) with key (seed, k); position ``p`` has its own counters,
    so the noise of a position does not depend on the number of positions.
    """
    return _gumbel_of(_bits(seed, k, 0, positions, vocabulary))


def _bits(seed: int, k: int, number: int, positions: int, vocabulary: int) -> npt.NDArray[np.uint32]:
    """Random words ``(positions, vocabulary)`` of 32 bits, for slice ``number`` of a stack or a single image (0)."""
    k += number << 16  # far above the number of scales
    blocks = -(-vocabulary // 8)  # a counter gives 4 × 64 bits: 8 words
    bits = np.random.Philox(key=np.array([check_seed(seed), k], dtype=np.uint64)).random_raw(positions * blocks * 4)
    # Little-endian halves, whatever the machine.
    return bits.astype("<u8", copy=False).view("<u4").reshape(positions, blocks * 8)[:, :vocabulary]


def _gumbel_of(words: npt.NDArray[np.uint32]) -> FloatArray:
    # 23 bits at half steps: float32 holds them exactly, and they are never 0 or 1.
    uniform = ((words >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)
    noise: FloatArray = -np.log(-np.log(uniform))
    return noise


def guide(conditional: FloatArray, unconditional: FloatArray, strength: float) -> FloatArray:
    """Classifier-free guidance (arXiv 2207.12598): ``(1 + s)·conditional - s·unconditional``."""
    s = np.float32(strength)
    return (1 + s) * conditional - s * unconditional


def guide_away(conditional: FloatArray, weaker: FloatArray, strength: float) -> FloatArray:
    """Guidance away from a weaker model (after arXiv 2406.02507): `guide`, among plausible tokens.

    A token that both models find improbable can get a high guided logit by chance, and would be visible as a speckle.
    Tokens below `PLAUSIBLE` times the probability of the likeliest one therefore come after all others, in the order
    of their conditional logits (the plausibility constraint of arXiv 2210.15097).
    """
    guided = guide(conditional, weaker, strength)
    below = conditional - conditional.max(-1, keepdims=True)
    least = guided.max(-1, keepdims=True) - np.float32(_FAR_BELOW)
    return np.where(below < np.float32(np.log(PLAUSIBLE)), least + below, guided)


def entropy(logits: FloatArray) -> FloatArray:
    """Entropy in bits of each token's distribution: ``(…, V)`` → ``(…)``."""
    log_p = log_softmax(logits)
    bits: FloatArray = -(np.exp(log_p) * log_p).sum(-1) / np.float32(np.log(2))
    return np.maximum(bits, 0)


def log_softmax(logits: FloatArray) -> FloatArray:
    """Natural logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def candidates(logits: FloatArray, top_k: int, top_p: float) -> tuple[IntArray, FloatArray]:
    """The tokens that remain after top-k and then top-p: logits ``(L, V)`` → tokens and their logits, ``(L, N)`` each.

    Rows are in decreasing order of logits; logits that top-p removes are -inf. At least one token of a row remains.
    """
    vocabulary = logits.shape[-1]
    count = min(top_k, vocabulary) if top_k else vocabulary
    tokens = np.argpartition(-logits, count - 1, axis=-1)[:, :count] if count < vocabulary else None
    values = logits if tokens is None else np.take_along_axis(logits, tokens, axis=-1)
    order = np.argsort(-values, axis=-1, kind="stable")
    values = np.take_along_axis(values, order, axis=-1)
    tokens = order if tokens is None else np.take_along_axis(tokens, order, axis=-1)
    if top_p < 1:
        probability = np.exp(log_softmax(values))
        before = np.cumsum(probability, axis=-1) - probability  # total probability of the likelier ones
        before[:, 0] = 0  # regardless of rounding
        values = np.where(before < top_p, values, np.float32(-np.inf))
    return tokens, values


def draw(logits: FloatArray, sampling: Sampling, seed: int, k: int, number: int = 0) -> IntArray:
    """Tokens of scale k of one image: guided logits ``(L, V)`` → ``(L,)``, by the Gumbel-max trick.

    Slice ``number`` of a stack has noise of its own; that of the first is the noise of a single image.
    """
    if sampling.temperature == 0:
        likeliest: IntArray = logits.argmax(-1)
        return likeliest
    tokens, values = candidates(logits / np.float32(sampling.temperature), sampling.top_k, sampling.top_p)
    noise = _gumbel_of(np.take_along_axis(_bits(seed, k, number, *logits.shape), tokens, axis=-1))
    best = (values + noise).argmax(-1)
    return np.take_along_axis(tokens, best[:, None], axis=-1)[:, 0]
