"""Keys and values of one scale, as the CPU's networks gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvar_engine.arrays import FloatArray


@dataclass(frozen=True, eq=False, slots=True)
class KeysValues:
    """``(depth, 2, B, heads, L, d)``, its rows in parts. Never changed, so that prefixes can share it.

    A batch goes through the networks in blocks of rows. To join them would copy every scale once more, which of 16
    images took an eighth of the time; and of the finest scale, the largest, nobody asks.
    """

    parts: tuple[FloatArray, ...]  # (depth, 2, rows, heads, L, d) each

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    def rows(self, first: int, end: int) -> FloatArray:
        """Rows ``first…end-1``; a view where they lie in one part."""
        found, begin = [], 0
        for part in self.parts:
            if first < begin + part.shape[2] and begin < end:
                found.append(part[:, :, max(0, first - begin) : end - begin])
            begin += part.shape[2]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=2)

    def average(self) -> FloatArray:
        """The mean over tokens: ``(depth, 2, B, heads, d)``."""
        return np.concatenate([part.mean(axis=4) for part in self.parts], axis=2)

    @staticmethod
    def gather(rows: Sequence[tuple[KeysValues, int]]) -> KeysValues:
        """One row of each."""
        return KeysValues((np.concatenate([own.rows(row, row + 1) for own, row in rows], axis=2),))
