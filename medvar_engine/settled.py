"""Tokens of the finest scales that are settled: the transformer skips them, and their neighbours speak for them.

The idea of FastVAR (arXiv 2503.23367): at fine scales most places hardly change any more. Only every second place of
the map, as the black fields of a chessboard, may be skipped, those first at which the scale before changed the latent
least. All four neighbours of a skipped place are then drawn by the transformer, and the mean of their logits stands
in. FastVAR takes what the scale before said of the place; docs/explanation/speed.md compares the two.

Which places these are follows from the tokens of coarser scales alone: not from what is drawn beside an image, nor
from its condition. So one image has the same places with guidance and without.
"""

from __future__ import annotations

import numpy as np

from medvar_engine.arrays import BoolArray, FloatArray, IntArray
from medvar_engine.schedule import ScaleSchedule

SCALES = 2  # the finest ones, in which tokens are skipped
LARGEST_SHARE = 0.5  # the black fields
_STEPS = 1024  # to a row's mean change, in which it is told apart


def first_skipping(schedule: ScaleSchedule) -> int:
    """The coarsest scale in which tokens are skipped; never the first, to which nothing came before."""
    return max(1, len(schedule) - SCALES)


def skipped_tokens(schedule: ScaleSchedule, k: int, share: float) -> int:
    """How many of scale k's tokens are skipped; ``share`` is that of the finest scales, at most a half."""
    return int(share * schedule.token_counts[k]) if k >= first_skipping(schedule) else 0


def unsettled(latent: FloatArray, before: FloatArray | None, side: int, skipped: int) -> IntArray:
    """Places of a scale that the transformer draws: ``(B, side² - skipped)``, in rising order.

    ``latent`` ``(B, C, H, W)`` is that after the scale before, ``before`` that without it, None where it was the first.
    """
    size = np.square(latent if before is None else latent - before).sum(axis=1)
    nearest = (2 * np.arange(side) + 1) * size.shape[-1] // (2 * side)
    size = size[:, nearest[:, None], nearest].reshape(len(size), -1)
    # In whole steps, ties by place: what is the same but for rounding is in the same order on every machine.
    steps = np.rint(size * (_STEPS / np.maximum(size.mean(axis=1, keepdims=True), np.float32(1e-20)))).astype(np.int64)
    order = np.argsort(np.where(_black(side), steps, np.iinfo(np.int64).max), axis=1, kind="stable")
    return np.sort(order[:, skipped:], axis=1)


def fill_in(logits: FloatArray, places: IntArray, side: int) -> FloatArray:
    """One image's logits of all of a scale, ``(side², V)``: those of ``places`` ``(L,)``, and what stands in.

    ``logits`` ``(L, V)``; the mean of its neighbours' is that of a place that is left out.
    """
    vocabulary = logits.shape[-1]
    known = np.zeros((side + 2, side + 2, 1), dtype=np.float32)
    framed = np.zeros((side + 2, side + 2, vocabulary), dtype=np.float32)
    rows, columns = places // side + 1, places % side + 1
    known[rows, columns], framed[rows, columns] = 1, logits
    missing = np.ones(side * side, dtype=np.bool_)
    missing[places] = False
    rows, columns = np.nonzero(missing.reshape(side, side))
    around = [(rows, columns + 1), (rows + 2, columns + 1), (rows + 1, columns), (rows + 1, columns + 2)]
    framed[rows + 1, columns + 1] = sum(framed[at] for at in around) / sum(known[at] for at in around)
    return framed[1:-1, 1:-1].reshape(-1, vocabulary)


def _black(side: int) -> BoolArray:
    """Every second place ``(side²,)``, so that no two of them are neighbours."""
    return np.indices((side, side)).sum(axis=0).ravel() % 2 == 1
