"""From logits to tokens: guidance, temperature, top-k, top-p, and noise that is a function of its place.

The noise of a token depends on (seed, scale, position) alone, so an image is the same whatever is drawn beside
it, in whatever batch, by whichever backend.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.arrays import FloatArray, IntArray
from medvar_engine.errors import MedvarError

MAX_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. The defaults are VAR's, but for ``top_k``, which follows the vocabulary."""

    guidance: float = 1.5  # classifier-free guidance at the finest scale
    temperature: float = 1.0  # 0 takes the likeliest token
    top_k: int = 0  # keep the k likeliest tokens; 0 keeps all
    top_p: float = 0.96  # keep the likeliest tokens that together have this probability; 1 keeps all
    even_guidance: bool = False  # the same guidance at every scale; else it rises from 0 at the coarsest, as VAR's

    def __post_init__(self) -> None:
        checks = (
            ("guidance", 0 <= self.guidance <= 100, "between 0 and 100"),
            # Below a thousandth, logits divided by it could overflow; 0 says the same.
            ("temperature", self.temperature == 0 or 1e-3 <= self.temperature <= 100, "0 or between 0.001 and 100"),
            ("top_k", isinstance(self.top_k, int) and self.top_k >= 0, "a whole number, 0 (all tokens) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("even_guidance", isinstance(self.even_guidance, bool), "true or false"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise MedvarError(f"{name} must be {expected}, but is {getattr(self, name)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `even_guidance` only where true, so that names made of these stay what they were."""
        values = asdict(self)
        return values if self.even_guidance else {k: v for k, v in values.items() if k != "even_guidance"}

    def guidance_of(self, k: int, scales: int) -> float:
        """Guidance of scale k of so many."""
        return self.guidance if self.even_guidance else ramp(self.guidance, k, scales)


def check_seed(seed: int) -> int:
    """``seed`` itself, or `MedvarError` when it is not in 0…2⁶⁴-1."""
    if not 0 <= seed <= MAX_SEED:
        raise MedvarError(f"A seed is an integer from 0 to {MAX_SEED}, but got {seed}.")
    return seed


def gumbel(seed: int, k: int, positions: int, vocabulary: int) -> FloatArray:
    """Standard Gumbel noise ``(positions, vocabulary)`` of scale ``k``.

    Counter-based (Philox-4×64, Salmon et al. 2011) with key (seed, k); position ``p`` has counters of its own,
    so the noise of a position does not depend on how many are asked for.
    """
    return _gumbel_of(_bits(seed, k, positions, vocabulary))


def _bits(seed: int, k: int, positions: int, vocabulary: int) -> npt.NDArray[np.uint32]:
    """Random words ``(positions, vocabulary)`` of 32 bits."""
    blocks = -(-vocabulary // 8)  # a counter gives 4 × 64 bits: 8 words
    bits = np.random.Philox(key=np.array([check_seed(seed), k], dtype=np.uint64)).random_raw(positions * blocks * 4)
    # Little-endian halves, whatever the machine.
    return bits.astype("<u8", copy=False).view("<u4").reshape(positions, blocks * 8)[:, :vocabulary]


def _gumbel_of(words: npt.NDArray[np.uint32]) -> FloatArray:
    # 23 bits at half steps: float32 holds them exactly, and they are never 0 or 1.
    uniform = ((words >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)
    noise: FloatArray = -np.log(-np.log(uniform))
    return noise


def ramp(guidance: float, k: int, scales: int) -> float:
    """Guidance of scale k: linear from 0 at the coarsest to ``guidance`` at the finest, as VAR does."""
    return guidance * k / max(1, scales - 1)


def guide(conditional: FloatArray, unconditional: FloatArray, strength: float) -> FloatArray:
    """Classifier-free guidance (arXiv 2207.12598): ``(1 + s)·conditional - s·unconditional``."""
    s = np.float32(strength)
    return (1 + s) * conditional - s * unconditional


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
    """The tokens that top-k and then top-p leave: logits ``(L, V)`` → tokens and their logits, ``(L, N)`` each.

    Rows are in falling order of logits; what top-p drops is -inf. At least one token of a row stays.
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
        before = np.cumsum(probability, axis=-1) - probability  # mass of the likelier ones
        before[:, 0] = 0  # whatever rounding says
        values = np.where(before < top_p, values, np.float32(-np.inf))
    return tokens, values


def draw(logits: FloatArray, sampling: Sampling, seed: int, k: int) -> IntArray:
    """One image's tokens of scale k: guided logits ``(L, V)`` → ``(L,)``, by the Gumbel-max trick."""
    if sampling.temperature == 0:
        likeliest: IntArray = logits.argmax(-1)
        return likeliest
    tokens, values = candidates(logits / np.float32(sampling.temperature), sampling.top_k, sampling.top_p)
    words = np.take_along_axis(_bits(seed, k, *logits.shape), tokens, axis=-1)
    best = (values + _gumbel_of(words)).argmax(-1)
    return np.take_along_axis(tokens, best[:, None], axis=-1)[:, 0]
