"""Dice of masks of numbered structures: 2·|A ∩ B| / (|A| + |B|) for each structure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medvar_engine.types import IntArray


def overlap_counts(found: npt.NDArray[np.generic], real: npt.NDArray[np.generic], structures: int) -> IntArray:
    """Pixels of each structure in masks ``(B, H, W)``: ``(B, M, 3)``.

    The last axis holds the pixels that both masks have, those of ``found``, and those of ``real``.
    """
    counts = np.empty((len(found), structures, 3), dtype=np.int64)
    for value in range(1, structures + 1):
        one, other = found == value, real == value
        counts[:, value - 1] = np.stack([each.sum((1, 2)) for each in (one & other, one, other)], axis=-1)
    return counts


def dice(counts: IntArray) -> npt.NDArray[np.float64]:
    """Dice of `overlap_counts`, or of sums of them, ``(…, 3)`` → ``(…)``; NaN where neither mask has a pixel."""
    both, one, other = np.moveaxis(counts.astype(np.float64), -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * both / (one + other))
