"""Exact percentiles of a whole scan without sorting."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from medvar_engine.types import FloatArray

_BINS = 1 << 12
_PIECE = 1 << 16  # values that fit into the processor's cache


class Ranked:
    """Finite values of any shape, prepared for several percentiles.

    The values are counted in bins once; a percentile then needs the values of one or two bins only. The bin index
    increases with the value in spite of rounding, so percentiles are exact.
    """

    def __init__(self, values: FloatArray) -> None:
        self.values = values
        self.low, self.high = float(values.min()), float(values.max())
        self._flat = values.ravel(order="K")
        with np.errstate(over="ignore", divide="ignore"):
            width = np.float32(self.high) - np.float32(self.low)
            scale = np.float32(_BINS - 1) / width
        self._bins = np.zeros(self._flat.shape, dtype=np.uint16)
        counts = np.zeros(_BINS, dtype=np.intp)
        for piece in self._pieces():
            if np.isfinite(width) and np.isfinite(scale):  # otherwise all values are in one bin
                self._bins[piece] = (self._flat[piece] - np.float32(self.low)) * scale
            counts += np.bincount(self._bins[piece], minlength=_BINS)
        self._ends = np.cumsum(counts)

    def count_above(self, value: float) -> int:
        """The number of values larger than ``value``."""
        return sum(int(np.count_nonzero(self._flat[piece] > value)) for piece in self._pieces())

    def percentile(self, percent: float, *, of: int | None = None) -> float:
        """A percentile as by NumPy, linear between two values; of the ``of`` largest values, or of all."""
        count = self._flat.size if of is None else of
        at = self._flat.size - count + percent / 100 * (count - 1)
        ranks = np.asarray([math.floor(at), math.ceil(at)])
        first, last = np.searchsorted(self._ends, ranks, side="right")
        members = self._members(int(first), int(last))
        lower, upper = ranks - (self._ends[first - 1] if first else 0)
        ordered = np.partition(members, (lower, upper))
        return float(ordered[lower]) + (at - ranks[0]) * (float(ordered[upper]) - float(ordered[lower]))

    def _pieces(self) -> Iterator[slice]:
        """The values in pieces that fit into the processor's cache."""
        return (slice(start, start + _PIECE) for start in range(0, self._flat.size, _PIECE))

    def _members(self, first: int, last: int) -> FloatArray:
        """The values in the bins ``first`` and ``last``, which may be the same; all bins between are empty."""
        found = []
        for piece in self._pieces():
            bins = self._bins[piece]
            chosen = bins == first
            if last > first:
                chosen |= bins == last
            found.append(self._flat[piece][chosen])
        return np.concatenate(found)
