"""The nearest of many embeddings, in blocks: memory does not grow with their number. Numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.types import FloatArray, IntArray

QUERIES = 1024
TRAINING = 16384

MIRRORS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))
"""Image axes of ``(N, H, W)`` along which a copy may be mirrored: none, up and down, left and right, both."""

Embeddings = npt.NDArray[np.floating[Any]]


def nearest(queries: Embeddings, training: Embeddings) -> tuple[FloatArray, IntArray]:
    """Distance to the nearest row of ``training``, and which it is: ``(M,)`` each, the first of equal ones.

    Embeddings ``(M, D)`` and ``(N, D)``, N ≥ 1, are compared by direction: the distance is that of the two scaled to
    length 1, 0 for the same direction and at most 2.
    """
    distances = np.empty(len(queries), dtype=np.float32)
    numbers = np.zeros(len(queries), dtype=np.int64)
    for first in range(0, len(queries), QUERIES):
        rows = slice(first, first + QUERIES)
        asked = unit(queries[rows])
        best = np.full(len(asked), -np.inf, dtype=np.float32)
        for start in range(0, len(training), TRAINING):
            cosines = asked @ unit(training[start : start + TRAINING]).T
            chosen = cosines.argmax(axis=1)
            found = cosines[np.arange(len(asked)), chosen]
            better = found > best
            best[better] = found[better]
            numbers[rows][better] = start + chosen[better]
        distances[rows] = np.sqrt(np.maximum(0, 2 - 2 * best))
    return distances, numbers


def unit(embeddings: Embeddings) -> FloatArray:
    """``(N, D)`` → the same directions, of length 1."""
    rows = np.asarray(embeddings, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
