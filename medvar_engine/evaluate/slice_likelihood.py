"""The negative log-likelihood of slices under a model, for membership inference."""

from __future__ import annotations

import numpy as np

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.evaluate.encoded_slices import encoded_slices
from medvar_engine.generate.generator import Generator
from medvar_engine.types import FloatArray

_BATCH = 16


def negative_log_likelihood(
    generator: Generator, data: SliceDataset, count: int, seed: int = 0
) -> tuple[FloatArray, list[str]]:
    """Mean negative log-likelihood of the tokens of ``count`` random slices ``(N,)`` in bits, and the patient of each.

    Every slice is evaluated under its own condition, as far as the model knows it.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(data))[:count])
    found = []
    for first in range(0, len(chosen), _BATCH):
        part = chosen[first : first + _BATCH]
        maps = generator.likelihood(encoded_slices(generator, data, part))
        found.append(np.concatenate([one.reshape(len(part), -1) for one in maps], axis=1).mean(axis=1))
    return np.concatenate(found), [data.rows[int(i)].patient for i in chosen]
