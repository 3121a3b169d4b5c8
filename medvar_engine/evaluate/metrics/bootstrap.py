"""How far may a figure be off? Intervals by drawing patients again."""

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
    """A figure, and the interval that holds it in ``confidence`` of samples; None where it cannot be told."""

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
    """``statistic`` of all rows, with the percentile interval over ``draws`` samples of whole groups.

    ``groups`` says whose each row is: slices of one person are alike, and counting them one by one would make the
    interval too narrow. Without at least two groups there is no interval. A draw of which the statistic is not finite
    is left out.
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
    """As `estimate`, for a distance between distributions, which repeated images make larger.

    A draw repeats images, and so is farther away than the images themselves: often no draw is as near as they are.
    The interval is that of the draws moved until their median is the value, and holds nothing below 0. It says how far
    the figure may be off for this number of images; what more of them would do is for `sample_size_bias`.
    """
    value = distance(np.arange(len(groups)))
    found = _drawn(distance, groups, draws, seed)
    return estimate_around(value, found, confidence=confidence, lowest=0.0)


def estimate_around(value: float, drawn: Values, *, confidence: float = 0.95, lowest: float = -np.inf) -> Estimate:
    """``value`` with the interval of ``drawn`` moved until their median is the value, and nothing below ``lowest``."""
    if not len(drawn):
        return Estimate(value, confidence=confidence)
    low, middle, high = np.quantile(drawn, [(1 - confidence) / 2, 0.5, (1 + confidence) / 2])
    return Estimate(value, max(lowest, float(value + low - middle)), float(value + high - middle), confidence)


def estimate_mean(
    values: npt.NDArray[Any], groups: Sequence[str], *, draws: int = DRAWS, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """As `estimate`, of the mean of ``values`` ``(N,)``, from the sums of the groups."""
    value = float(np.mean(values))
    names, codes = np.unique(list(groups), return_inverse=True)
    if len(names) < 2:
        return Estimate(value, confidence=confidence)
    sums, sizes = np.bincount(codes, weights=values), np.bincount(codes)
    means = [times @ sums / (times @ sizes) for times in _times(len(names), draws, seed)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high), confidence)


def group_weights(groups: Sequence[str], *, draws: int = DRAWS, seed: int = 0) -> Values:
    """How often each row is in each draw of whole groups, ``(draws, N)``; no draws of fewer than two groups.

    Memory grows with the rows: for figures that compare all pairs of some of the images.
    """
    names, codes = np.unique(list(groups), return_inverse=True)
    if len(names) < 2:
        return np.empty((0, len(codes)))
    weights: Values = np.stack(list(_times(len(names), draws, seed))).astype(np.float64)[:, codes]
    return weights


def _times(groups: int, draws: int, seed: int) -> Iterator[Indices]:
    """How often each of so many groups is in each draw, ``(groups,)``."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(groups, size=groups), minlength=groups)


def _drawn(statistic: Callable[[Indices], float], groups: Sequence[str], draws: int, seed: int) -> Values:
    """The statistic of every draw for which it is finite; none when there are fewer than two groups."""
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
