"""Some rows of features that lie on the disk, without a copy of them: a draw of a bootstrap is read in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medvar_engine.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows ``chosen`` ``(N,)`` of ``features``, in that order, as an array ``(N, D)`` that is read when asked for.

    >>> Rows(np.float32([[0], [1], [2]]), np.array([2, 2, 0]))[1:].tolist()
    [[2.0], [0.0]]
    """

    features: FloatArray | Rows
    chosen: IntArray

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, D)``."""
        return (len(self.chosen), *self.features.shape[1:])

    @property
    def ndim(self) -> int:
        """2, unless the features are no features."""
        return self.features.ndim

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: slice | IntArray) -> FloatArray:
        return np.asarray(self.features[self.chosen[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        """All of them, in memory."""
        return np.asarray(self[:], dtype=dtype)


Features = FloatArray | Rows
"""Of images, ``(N, D)``, in memory, mapped or chosen."""
