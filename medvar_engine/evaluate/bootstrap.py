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
    _, codes = np.unique(list(groups), return_inverse=True)
    value = statistic(np.arange(len(codes)))
    rows = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)] if len(codes) else []
    if len(rows) < 2:
        return Estimate(value, confidence=confidence)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        index = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        drawn = statistic(index)
        if np.isfinite(drawn):
            found.append(drawn)
    if not found:
        return Estimate(value, confidence=confidence)
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high), confidence)
