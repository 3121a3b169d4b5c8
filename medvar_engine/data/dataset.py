"""`SliceDataset`: prepared slices, read from shards by memory map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medvar_engine.conditions import NAMED, POSITION_STEPS, Condition
from medvar_engine.data.shards import Rows, ShardFolder
from medvar_engine.data.shards.slice_table import names, numbers
from medvar_engine.data.shards.tally import distinct_rows
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray, Structures
from medvar_engine.types import FloatArray
from medvar_engine.value_range import CodeArray, decode

OPEN_SHARDS = 128


class Conditions(Sequence[Condition]):
    """The conditions of many slices, stored as ``distinct`` ones and, for each slice, the number of its own, ``codes``.

    Positions are rounded to the middle of one of `POSITION_STEPS` steps, so that there are few distinct conditions.
    """

    def __init__(self, distinct: tuple[Condition, ...], codes: NDArray[np.int32]) -> None:
        self.distinct, self.codes = distinct, codes

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> Condition: ...
    @overload
    def __getitem__(self, index: slice) -> Conditions: ...
    def __getitem__(self, index: int | slice) -> Condition | Conditions:
        if isinstance(index, slice):
            return Conditions(self.distinct, self.codes[index])
        return self.distinct[self.codes[index]]


class SliceDataset:
    """Map-style dataset of one split: ``dataset[i]`` is ``(image (1, H, W) float32 in [-1, 1], Condition)``.

    Images and table stay on the disk until they are used; a slice takes 20 bytes of memory. With ``split`` None the
    dataset has the slices of all splits. Raises `MedvarError` for a damaged folder or an empty split.

    >>> dataset = SliceDataset(Path("slices"), split="train")  # doctest: +SKIP
    >>> image, condition = dataset[0]  # doctest: +SKIP
    """

    def __init__(self, folder: Path, split: str | None = None) -> None:
        if split not in ("train", "test", None):
            raise MedvarError(f"split must be 'train', 'test' or None, but is {split!r}.")
        self.folder = Path(folder)
        self.split = split
        self._source = ShardFolder.open(self.folder)
        self.manifest = self._source.manifest
        self._positions = _positions(self._source, split)
        if not len(self._positions):
            raise MedvarError(f"{self.folder} has no slices in split {split!r}.")
        self._shards = numbers(self._source.table, "shard")[self._positions]
        self._places = numbers(self._source.table, "row")[self._positions]
        self.conditions = _conditions(self._source, self._positions)
        self.rows = Rows(self._source.table, self._positions, self.manifest.split)
        # Each open memory map counts towards the limit of open files of a process.
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(self._source.shard)
        self._mask_shard = lru_cache(maxsize=OPEN_SHARDS)(self._source.masks)

    @property
    def size(self) -> int:
        """The side length of the images in pixels."""
        return self.manifest.size

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> tuple[FloatArray, Condition]:
        return decode(self.codes(index))[np.newaxis], self.conditions[index]

    def codes(self, index: int) -> CodeArray:
        """One image as stored, (H, W) uint16."""
        return self._shard(int(self._shards[index]))[self._places[index]]

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> FloatArray:
        """The images of ``indices`` as (B, 1, H, W) float32 in [-1, 1]."""
        chosen = np.asarray(indices, dtype=np.int64)
        shards, places = self._shards[chosen], self._places[chosen]
        codes = np.empty((len(chosen), 1, self.size, self.size), dtype=np.uint16)
        for i in np.lexsort((places, shards)):  # in the order on the disk
            codes[i, 0] = self._shard(int(shards[i]))[places[i]]
        return decode(codes)

    @property
    def structures(self) -> Structures:
        """The structures of masks, in the order of their values from 1 up; empty if slices have no masks."""
        return self.manifest.masks

    def masks(self, indices: Sequence[int] | NDArray[np.integer]) -> MaskArray:
        """The masks of ``indices`` as (B, H, W). Raises `MedvarError` when there are none, or one is damaged."""
        chosen = np.asarray(indices, dtype=np.int64)
        masks = np.empty((len(chosen), self.size, self.size), dtype=np.uint8)
        for i, (shard, place) in enumerate(zip(self._shards[chosen], self._places[chosen], strict=True)):
            masks[i] = self._mask_shard(int(shard))[place]
        if masks.size and masks.max() > len(self.structures):
            raise MedvarError(
                f"{self.folder}: a mask has the value {masks.max()}, which is not the number of a structure."
            )
        return masks

    def pairs(self, indices: Sequence[int] | NDArray[np.integer]) -> FloatArray:
        """Images and masks of ``indices`` as (B, 2, H, W): pixels in [-1, 1], and the number of the structure."""
        return np.concatenate([self.batch(indices), self.masks(indices)[:, np.newaxis].astype(np.float32)], axis=1)

    def columns(self, *names: str) -> pa.Table:
        """Columns of the table for the slices of this split."""
        return self._source.table.select(names).take(self._positions)

    def __getstate__(self) -> dict[str, object]:
        # Pickling a memory map copies its content; a worker process opens the files again.
        return {"folder": self.folder, "split": self.split, "manifest": self.manifest.digest}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(state["folder"], split=state["split"])  # type: ignore[misc]
        if self.manifest.digest != state["manifest"]:
            raise MedvarError(f"{self.folder} was changed while it was being read. Start again.")


def _positions(source: ShardFolder, split: str | None) -> NDArray[np.int64]:
    """The positions of the slices of a split in the table."""
    if split is None:
        return np.arange(source.manifest.slices)
    chosen = [source.manifest.split[patient] == split for patient in names(source.table, "patient")]
    return np.flatnonzero(np.array(chosen, dtype=bool)[numbers(source.table, "patient")])


def _conditions(source: ShardFolder, positions: NDArray[np.int64]) -> Conditions:
    """The conditions of the slices at ``positions``."""
    named, codes = distinct_rows(source.table, NAMED)
    places = [*((step + 0.5) / POSITION_STEPS for step in range(POSITION_STEPS)), None]
    codes = codes[positions] * len(places) + _steps(source.table["position"].to_numpy()[positions])
    present = np.flatnonzero(np.bincount(codes))
    renumbered = np.zeros(len(named) * len(places), dtype=np.int32)
    renumbered[present] = np.arange(len(present))
    pairs = (divmod(code, len(places)) for code in present.tolist())
    values = ({**dict(zip(NAMED, named[name], strict=True)), "position": places[step]} for name, step in pairs)
    return Conditions(tuple(map(Condition.from_dict, values)), renumbered[codes])


def _steps(position: NDArray[np.float64]) -> NDArray[np.int32]:
    """The step of each position, see `medvar_engine.conditions.step_of`; `POSITION_STEPS` for NaN (unknown)."""
    steps = np.clip(position * POSITION_STEPS, 0, POSITION_STEPS - 1)
    return np.nan_to_num(steps, nan=POSITION_STEPS).astype(np.int32)
