"""Kernel distances between sets of features, which assume no Gaussian: KID and CMMD."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.check_features import check_comparable
from medvar_engine.evaluate.metrics.coverage import distances
from medvar_engine.types import FloatArray

Doubles = npt.NDArray[np.float64]

_ROWS = 2048
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # values of the paper


def kernel_distance(
    ours: FloatArray, theirs: FloatArray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID (arXiv 1801.01401) of features ``(N, D)`` and ``(M, D)``: mean and standard deviation over random subsets.

    It is the unbiased squared maximum mean discrepancy under the kernel ``(x·y / D + 1)³``. Subsets are at most as
    large as the smaller side; if both sides are small, one subset contains all images. Raises `MedvarError` for fewer
    than 2 images on a side.
    """
    check_comparable(ours, theirs)
    size = min(subset_size, len(ours), len(theirs))
    if size < 2:
        raise MedvarError("KID needs at least 2 images on both sides.")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        drawn = [np.asarray(f[np.sort(rng.permutation(len(f))[:size])], dtype=np.float64) for f in (ours, theirs)]
        values.append(_unbiased(*drawn))
        if size == len(ours) == len(theirs):
            break  # all subsets are equal
    return float(np.mean(values)), float(np.std(values))


def _unbiased(x: Doubles, y: Doubles) -> float:
    count = len(x)
    xx, yy, xy = (_cubic(a, b) for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (count * (count - 1))
    value = float(within - 2 * xy.mean())
    rounding = 8 * np.finfo(np.float64).eps * float(max(abs(one).max() for one in (xx, yy, xy)))
    return 0.0 if abs(value) <= rounding else value


def _cubic(x: Doubles, y: Doubles) -> Doubles:
    kernel: Doubles = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def cmmd(ours: FloatArray, theirs: FloatArray) -> float:
    """CMMD (arXiv 2401.09603): squared discrepancy of unit-length features under a Gaussian kernel, times 1000.

    The paper uses features of CLIP; values of other encoders cannot be compared with those of the paper.
    """
    check_comparable(ours, theirs)
    if not len(ours) or not len(theirs):
        raise MedvarError("CMMD needs at least 1 image on both sides.")
    return CMMD_SCALE * (_gaussian(ours, ours) + _gaussian(theirs, theirs) - 2 * _gaussian(ours, theirs))


def _gaussian(x: FloatArray, y: FloatArray) -> float:
    """The mean of ``exp(-|x - y|² / 2σ²)`` over all pairs."""
    total = 0.0
    for a in _blocks(x):
        for b in _blocks(y):
            total += float(_gaussian_of(a, b).sum())
    return total / (len(x) * len(y))


def kernel_draws(ours: FloatArray, theirs: FloatArray, weights: Doubles) -> Doubles:
    """KID of bootstrap draws of ``ours``, up to a constant: ``(R,)`` for ``weights`` ``(R, M)``.

    Pairs of an image with itself, which are more frequent in a draw, are left out.
    """
    return _draws(ours, theirs, weights, _cubic)


def cmmd_draws(ours: FloatArray, theirs: FloatArray, weights: Doubles) -> Doubles:
    """CMMD of bootstrap draws of ``ours``, like `kernel_draws`."""
    x, y = (np.concatenate(list(_blocks(side))) for side in (ours, theirs))
    return CMMD_SCALE * _draws(x, y, weights, _gaussian_of)


def _draws(ours: Any, theirs: Any, weights: Doubles, kernel: Callable[[Doubles, Doubles], Doubles]) -> Doubles:
    x, y = (np.asarray(side, dtype=np.float64) for side in (ours, theirs))
    within, cross = np.zeros(len(weights)), np.zeros(len(weights))
    for first in range(0, len(x), _ROWS):
        rows = slice(first, first + _ROWS)
        own = kernel(x[rows], x)
        own[np.arange(len(own)), first + np.arange(len(own))] = 0.0
        within += (weights[:, rows] @ own * weights).sum(axis=1)
        cross += weights[:, rows] @ kernel(x[rows], y).mean(axis=1)
    total = weights.sum(axis=1)
    pairs = total**2 - (weights**2).sum(axis=1)
    drawn: Doubles = within / np.where(pairs > 0, pairs, np.nan) - 2 * cross / total
    return drawn[np.isfinite(drawn)]


def _gaussian_of(x: Doubles, y: Doubles) -> Doubles:
    kernel: Doubles = np.exp(-distances(x, y) / (2 * CMMD_SIGMA**2))
    return kernel


def _blocks(features: FloatArray) -> Iterator[Doubles]:
    for first in range(0, len(features), _ROWS):
        rows = np.asarray(features[first : first + _ROWS], dtype=np.float64)
        yield rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
