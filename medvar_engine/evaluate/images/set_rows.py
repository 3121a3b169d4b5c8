"""`SetRows`: where the images of a set of shards are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medvar_engine.encoders.image_source import Indices
from medvar_engine.sets.image_set import ImageSet


class SetRows:
    """The unit and row of each image of a set of shards, numbered without withheld images."""

    def __init__(self, source: ImageSet) -> None:
        counts = [len(source.numbers(unit)) for unit in range(source.manifest.plan.units)]
        self._ends = np.cumsum(counts, dtype=np.int64)  # number of images up to the end of each unit

    def __len__(self) -> int:
        return int(self._ends[-1])

    def find(self, indices: Indices) -> Iterator[tuple[int, int]]:
        """Unit and row of images ``indices``. Rows are negative, because they are counted from the end of the unit."""
        units = np.searchsorted(self._ends, indices, side="right")
        for i, unit in zip(indices, units, strict=True):
            yield int(unit), int(i) - int(self._ends[unit])
