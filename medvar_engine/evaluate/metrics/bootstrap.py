"""Bootstrap intervals of metrics, by resampling whole groups such as patients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

DRAWS = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its confidence interval; None where it cannot be estimated."""

    value: float
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95


def estimate(
    statistic: Callable[[Indices], float],
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The ``statistic`` of all rows, with the percentile interval over ``draws`` resamples of whole groups.

    ``groups`` is the group of each row, such as its patient: slices of one patient are similar, so resampling single
    rows would give too narrow an interval. With fewer than two groups there is no interval. Draws with a statistic that
    is not finite are left out.
    """
    value = statistic(np.arange(len(groups)))
    found = _drawn(statistic, groups, draws, seed)
    if not len(found):
        return Estimate(value, confidence=confidence)
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high), confidence)


def estimate_distance(
    distance: Callable[[Indices], float],
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Like `estimate`, for a distance between distributions, which is larger for resamples.

    A resample contains repeated images, so its distance is larger than that of the images themselves, often in all
    draws. The interval is therefore that of the draws, shifted so that their median is the value, and cut at 0. It is
    the uncertainty for this number of images; for the effect of more images see `sample_size_bias`.
    """
    value = distance(np.arange(len(groups)))
    found = _drawn(distance, groups, draws, seed)
    return estimate_around(value, found, confidence=confidence, lowest=0.0)


def estimate_around(value: float, drawn: Values, *, confidence: float = 0.95, lowest: float = -np.inf) -> Estimate:
    """``value`` with the interval of ``drawn``, shifted so that their median is the value, and cut at ``lowest``."""
    if not len(drawn):
        return Estimate(value, confidence=confidence)
    low, middle, high = np.quantile(drawn, [(1 - confidence) / 2, 0.5, (1 + confidence) / 2])
    return Estimate(value, max(lowest, float(value + low - middle)), float(value + high - middle), confidence)


def estimate_mean(
    values: npt.NDArray[Any], groups: Sequence[str], *, draws: int = DRAWS, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Like `estimate` for the mean of ``values`` ``(N,)``, computed from the sums of the groups."""
    value = float(np.mean(values))
    names, codes = np.unique(list(groups), return_inverse=True)
    if len(names) < 2:
        return Estimate(value, confidence=confidence)
    sums, sizes = np.bincount(codes, weights=values), np.bincount(codes)
    means = [times @ sums / (times @ sizes) for times in _times(len(names), draws, seed)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high), confidence)


def group_weights(groups: Sequence[str], *, draws: int = DRAWS, seed: int = 0) -> Values:
    """The number of occurrences of each row in each draw of whole groups, ``(draws, N)``.

    It is empty for fewer than two groups. It needs memory for all rows, and is meant for metrics that compare all pairs
    of a sample of images.
    """
    names, codes = np.unique(list(groups), return_inverse=True)
    if len(names) < 2:
        return np.empty((0, len(codes)))
    weights: Values = np.stack(list(_times(len(names), draws, seed))).astype(np.float64)[:, codes]
    return weights


def _times(groups: int, draws: int, seed: int) -> Iterator[Indices]:
    """The number of occurrences of each group in each draw, ``(groups,)``."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(groups, size=groups), minlength=groups)


def _drawn(statistic: Callable[[Indices], float], groups: Sequence[str], draws: int, seed: int) -> Values:
    """The finite values of the statistic over draws; empty for fewer than two groups."""
    names, codes = np.unique(list(groups), return_inverse=True)
    if len(names) < 2:
        return np.empty(0)
    order, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
    starts = np.cumsum(sizes) - sizes
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        chosen = rng.integers(len(names), size=len(names))
        many = sizes[chosen]
        before = np.repeat(np.cumsum(many) - many, many)
        drawn = statistic(order[np.repeat(starts[chosen], many) + np.arange(many.sum()) - before])
        if np.isfinite(drawn):
            found.append(drawn)
    return np.array(found)
