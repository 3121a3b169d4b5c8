"""Percentiles of a whole scan, exact, without sorting it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from medvar_engine.types import FloatArray

_BINS = 1 << 12
_PIECE = 1 << 16  # values that fit into the processor's cache


class Ranked:
    """Finite values, any shape, that are asked for by rank more than once.

    They are counted in bins once; a percentile then looks at one bin, or two. Bins only part the work: which bin a
    value falls into rises with the value, whatever rounding does, so that ranks are exact.
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
            if np.isfinite(width) and np.isfinite(scale):  # or else one bin has all
                self._bins[piece] = (self._flat[piece] - np.float32(self.low)) * scale
            counts += np.bincount(self._bins[piece], minlength=_BINS)
        self._ends = np.cumsum(counts)

    def count_above(self, value: float) -> int:
        """How many values are larger than ``value``."""
        return sum(int(np.count_nonzero(self._flat[piece] > value)) for piece in self._pieces())

    def percentile(self, percent: float, *, of: int | None = None) -> float:
        """As NumPy's, linear between two values; of the ``of`` largest values, or of all."""
        count = self._flat.size if of is None else of
        at = self._flat.size - count + percent / 100 * (count - 1)
        ranks = np.asarray([math.floor(at), math.ceil(at)])
        first, last = np.searchsorted(self._ends, ranks, side="right")
        members = self._members(int(first), int(last))
        lower, upper = ranks - (self._ends[first - 1] if first else 0)
        ordered = np.partition(members, (lower, upper))
        return float(ordered[lower]) + (at - ranks[0]) * (float(ordered[upper]) - float(ordered[lower]))

    def _pieces(self) -> Iterator[slice]:
        """The values in pieces that stay in the cache from one step to the next."""
        return (slice(start, start + _PIECE) for start in range(0, self._flat.size, _PIECE))

    def _members(self, first: int, last: int) -> FloatArray:
        """The values in two bins, of which those between are empty, or in one that is both."""
        found = []
        for piece in self._pieces():
            bins = self._bins[piece]
            chosen = bins == first
            if last > first:
                chosen |= bins == last
            found.append(self._flat[piece][chosen])
        return np.concatenate(found)
