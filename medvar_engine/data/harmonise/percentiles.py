"""Percentiles of a whole scan, exact, without sorting it."""

from __future__ import annotations

import math

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
        for start in range(0, self._flat.size, _PIECE):
            piece = slice(start, start + _PIECE)
            if np.isfinite(width) and np.isfinite(scale):  # or else one bin has all
                self._bins[piece] = (self._flat[piece] - np.float32(self.low)) * scale
            counts += np.bincount(self._bins[piece], minlength=_BINS)
        self._ends = np.cumsum(counts)

    def count_above(self, value: float) -> int:
        """How many values are larger than ``value``."""
        return int(np.count_nonzero(self._flat > value))

    def percentile(self, percent: float, *, of: int | None = None) -> float:
        """As NumPy's, linear between two values; of the ``of`` largest values, or of all."""
        count = self._flat.size if of is None else of
        at = self._flat.size - count + percent / 100 * (count - 1)
        ranks = np.asarray([math.floor(at), math.ceil(at)])
        first, last = np.searchsorted(self._ends, ranks, side="right")
        chosen = self._bins == first
        if last > first:
            chosen |= self._bins == last  # those between are empty
        members = self._flat[chosen]
        lower, upper = ranks - (self._ends[first - 1] if first else 0)
        ordered = np.partition(members, (lower, upper))
        return float(ordered[lower]) + (at - ranks[0]) * (float(ordered[upper]) - float(ordered[lower]))
