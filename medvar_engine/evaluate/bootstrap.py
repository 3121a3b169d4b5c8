"""How far may a figure be off? Intervals by drawing patients again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

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
    if not len(found):
        return Estimate(value, confidence=confidence)
    low, middle, high = np.quantile(found, [(1 - confidence) / 2, 0.5, (1 + confidence) / 2])
    return Estimate(value, max(0.0, float(value + low - middle)), float(value + high - middle), confidence)


def _drawn(
    statistic: Callable[[Indices], float], groups: Sequence[str], draws: int, seed: int
) -> npt.NDArray[np.float64]:
    """The statistic of every draw for which it is finite; none when there are fewer than two groups."""
    names, codes = np.unique(list(groups), return_inverse=True)
    if len(names) < 2:
        return np.empty(0)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        index = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        drawn = statistic(index)
        if np.isfinite(drawn):
            found.append(drawn)
    return np.array(found)
