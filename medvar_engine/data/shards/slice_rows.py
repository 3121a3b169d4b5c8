"""`Rows`: the table as a sequence of `SliceRow`, which are created on access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.shards.slice_table import BATCH_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRow(SliceFacts):
    """The metadata of a slice, its place in the shards, and its split (train or test)."""

    shard: int
    row: int
    split: str


class Rows(Sequence[SliceRow]):
    """Rows of a table by their positions. ``split`` is patient → train or test."""

    def __init__(self, table: pa.Table, positions: NDArray[np.int64], split: Mapping[str, str]) -> None:
        self._table, self._positions, self._split = table, positions, split

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> SliceRow: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> SliceRow | Rows:
        if isinstance(index, slice):
            return Rows(self._table, self._positions[index], self._split)
        return self._row(*self._table.slice(int(self._positions[index]), 1).to_pylist())

    def __iter__(self) -> Iterator[SliceRow]:
        for start in range(0, len(self), BATCH_ROWS):
            yield from map(self._row, self._table.take(self._positions[start : start + BATCH_ROWS]).to_pylist())

    def _row(self, values: dict[str, Any]) -> SliceRow:
        return SliceRow(**values, split=self._split[values["patient"]])
