"""`SliceDataset`: prepared slices, read from shards by memory map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvar_engine.conditions import Condition
from medvar_engine.data.codes import CodeArray, decode
from medvar_engine.data.shards import Manifest, SliceRow, open_shard, read_rows
from medvar_engine.data.volume import FloatArray
from medvar_engine.errors import MedvarError


class SliceDataset:
    """Map-style dataset of one split: ``dataset[i]`` is ``(image (1, H, W) float32 in [-1, 1], Condition)``.

    Memory does not grow with the images: they stay on disk until asked for. ``split`` None takes every slice.

    >>> dataset = SliceDataset(Path("slices"), split="train")  # doctest: +SKIP
    >>> image, condition = dataset[0]  # doctest: +SKIP
    """

    def __init__(self, folder: Path, split: str | None = None) -> None:
        if split not in ("train", "test", None):
            raise MedvarError(f"split is 'train', 'test' or None, but got {split!r}.")
        self.folder = Path(folder)
        self.split = split
        self.manifest = Manifest.read(self.folder)
        lengths = [int(shard["slices"]) for shard in self.manifest.shards]
        self._shards: list[CodeArray] = [
            open_shard(self.folder, number, length, self.manifest.size) for number, length in enumerate(lengths)
        ]
        rows = list(read_rows(self.folder))
        if len(rows) != self.manifest.slices:
            raise MedvarError(
                f"{self.folder}: slices.csv has {len(rows)} rows, but the manifest says {self.manifest.slices} slices. "
                "Prepare the data again."
            )
        for row in rows:
            if not (0 <= row.shard < len(lengths) and 0 <= row.row < lengths[row.shard]):
                raise MedvarError(
                    f"{self.folder}: slice {row.index} of slices.csv points outside the shards (row {row.row})."
                )
        self.rows: list[SliceRow] = [row for row in rows if split is None or row.split == split]
        if not self.rows:
            raise MedvarError(f"{self.folder} has no slices in split {split!r}.")
        self.conditions: list[Condition] = [
            Condition(row.modality, row.region, row.plane, row.dataset) for row in self.rows
        ]

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.manifest.size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[FloatArray, Condition]:
        row = self.rows[index]
        return decode(self._shards[row.shard][row.row])[np.newaxis], self.conditions[index]

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> FloatArray:
        """The images of ``indices`` as (B, 1, H, W) float32 in [-1, 1]."""
        codes = np.empty((len(indices), 1, self.size, self.size), dtype=np.uint16)
        for place, index in enumerate(indices):
            row = self.rows[int(index)]
            codes[place, 0] = self._shards[row.shard][row.row]
        return decode(codes)

    def __getstate__(self) -> dict[str, object]:
        # A memory map would be pickled with its contents; a worker process opens the files again.
        return {"folder": self.folder, "split": self.split}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(state["folder"], split=state["split"])  # type: ignore[misc]
