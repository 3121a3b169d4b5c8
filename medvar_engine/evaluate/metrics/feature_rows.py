"""`FeatureRows`: a selection of rows of features on the disk, read in parts, e.g. for bootstrap draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medvar_engine.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRows:
    """The rows ``chosen`` ``(N,)`` of ``features``, in that order, as an array ``(N, D)`` that is read on demand.

    >>> FeatureRows(np.float32([[0], [1], [2]]), np.array([2, 2, 0]))[1:].tolist()
    [[2.0], [0.0]]
    """

    features: FloatArray | FeatureRows
    chosen: IntArray

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, D)``."""
        return (len(self.chosen), *self.features.shape[1:])

    @property
    def ndim(self) -> int:
        """The number of axes, 2 for valid features."""
        return self.features.ndim

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: slice | IntArray) -> FloatArray:
        return np.asarray(self.features[self.chosen[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        """All rows, in memory."""
        return np.asarray(self[:], dtype=dtype)


Features = FloatArray | FeatureRows
"""Features ``(N, D)`` of images: in memory, memory-mapped, or selected rows."""
