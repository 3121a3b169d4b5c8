"""Exact percentiles of a whole scan without sorting."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from medvar_engine.types import FloatArray, IntArray

_BINS = 1 << 12
_PIECE = 1 << 16  # values that fit into the processor's cache
_MOST_NUMBERS = 1 << 16
_LARGEST_NUMBER = 1 << 24  # up to which float32 has all whole numbers


class RankedValues:
    """Finite values of any shape, prepared for several percentiles.

    The values are counted in bins once; a percentile then needs the values of one or two bins only. The bin index
    increases with the value in spite of rounding, so percentiles are exact. Whole numbers, which most scans have, get a
    bin each if they are not too many, and are not read again.
    """

    def __init__(self, values: FloatArray) -> None:
        self.values = values
        self.low, self.high = float(values.min()), float(values.max())
        self._flat = values.ravel(order="K")
        self._each: FloatArray | None = None  # the value of each bin, where all in it are equal
        counts = self._counts_of_each()
        if counts is None:
            counts = self._counts_in_bins()
        else:
            self._each = np.float32(self.low) + np.arange(counts.size, dtype=np.float32)
        self._ends = np.cumsum(counts)

    def _counts_of_each(self) -> IntArray | None:
        """How often each whole number from the lowest to the highest occurs; None where they are too many or broken."""
        if not (self.low.is_integer() and self.high.is_integer()):
            return None
        if self.high - self.low >= _MOST_NUMBERS or max(abs(self.low), abs(self.high)) > _LARGEST_NUMBER:
            return None
        counts = np.zeros(int(self.high - self.low) + 1, dtype=np.intp)
        for piece in self._pieces():
            numbers = self._flat[piece].astype(np.int32)
            if not np.array_equal(numbers, self._flat[piece]):
                return None
            counts += np.bincount(numbers - int(self.low), minlength=counts.size)
        return counts

    def _counts_in_bins(self) -> IntArray:
        with np.errstate(over="ignore", divide="ignore"):
            width = np.float32(self.high) - np.float32(self.low)
            scale = np.float32(_BINS - 1) / width
        self._bins = np.zeros(self._flat.shape, dtype=np.uint16)
        counts = np.zeros(_BINS, dtype=np.intp)
        for piece in self._pieces():
            if np.isfinite(width) and np.isfinite(scale):  # otherwise all values are in one bin
                self._bins[piece] = (self._flat[piece] - np.float32(self.low)) * scale
            counts += np.bincount(self._bins[piece], minlength=_BINS)
        return counts

    def count_above(self, value: float) -> int:
        """The number of values larger than ``value``."""
        if self._each is not None:
            place = int(np.searchsorted(self._each, np.float32(value), side="right"))
            return self._flat.size - (int(self._ends[place - 1]) if place else 0)
        return sum(int(np.count_nonzero(self._flat[piece] > value)) for piece in self._pieces())

    def percentile(self, percent: float, *, of: int | None = None) -> float:
        """A percentile as by NumPy, linear between two values; of the ``of`` largest values, or of all."""
        count = self._flat.size if of is None else of
        at = self._flat.size - count + percent / 100 * (count - 1)
        ranks = np.asarray([math.floor(at), math.ceil(at)])
        first, last = np.searchsorted(self._ends, ranks, side="right")
        if self._each is not None:
            lower, upper = float(self._each[first]), float(self._each[last])
        else:
            places = ranks - (self._ends[first - 1] if first else 0)
            lower, upper = np.partition(self._members(int(first), int(last)), places)[places].tolist()
        return lower + (at - ranks[0]) * (upper - lower)

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
