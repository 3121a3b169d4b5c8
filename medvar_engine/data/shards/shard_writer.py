"""`ShardWriter`: writes a new folder of shards, with constant memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from medvar_engine.data.shards.image_file import ImageFile, mask_name, shard_name
from medvar_engine.data.shards.shard_manifest import MANIFEST, Manifest
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.shards.slice_table import PLAIN, TABLE, read_table, rows_of, write_table
from medvar_engine.data.shards.tally import counts, sources, tally
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray, Structures, to_dicts
from medvar_engine.storage import beside, check_output, replace_folder, writing
from medvar_engine.value_range import CodeArray

SHARD_SLICES = 4096
_HELD_ROWS = 1024


class ShardWriter:
    """Writes a folder of shards; use it as a context manager, and call `finish` at the end.

    Without `finish`, e.g. after an exception, everything written is removed: ``folder`` is complete or does not exist.
    ``strata`` are the (modality, region) in which each patient added so far has slices. With ``structures``, each slice
    has a mask.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        *,
        structures: Structures = (),
        overwrite: bool = False,
        shard_slices: int = SHARD_SLICES,
    ) -> None:
        folder = Path(folder)
        if not (overwrite and (folder / MANIFEST).is_file()):  # other folders may contain the user's data
            check_output(folder)
        self.folder = folder
        self.size = size
        self.shard_slices = shard_slices
        self.structures = structures
        self.strata: dict[str, set[tuple[str, str]]] = {}
        self._shards: list[dict[str, Any]] = []
        self._image_file: ImageFile | None = None
        self._mask_file: ImageFile | None = None
        self._held: list[pa.RecordBatch] = []
        self._partial = beside(folder, "partial")
        self._failed = False
        with self._writing():
            self._partial.mkdir(parents=True)
            # Rows are kept here, because a table begins with all names in it, which are known at the end.
            self._rows_path = self._partial / "rows.arrows"
            self._rows_file = self._rows_path.open("wb")
            self._rows = pa.ipc.new_stream(self._rows_file, PLAIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._image_file, self._mask_file):
            if file is not None:
                file.discard()
        self._rows_file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, codes: CodeArray, facts: Sequence[SliceFacts], masks: MaskArray | None = None) -> None:
        """Append slices (N, size, size), their metadata and masks. Raises `MedvarError` when they do not fit."""
        if codes.shape != (len(facts), self.size, self.size) or codes.dtype != np.uint16:
            raise MedvarError(
                f"{len(facts)} slices of {self.size}×{self.size} uint16 codes are expected, but they are {codes.dtype} "
                f"{codes.shape}."
            )
        self._check_masks(masks, codes)
        rows = rows_of(facts, self._places(len(facts)))
        with self._writing():
            self._write_images(codes, masks)
            self._held.append(rows)
            if sum(map(len, self._held)) >= _HELD_ROWS:
                self._write_rows()
        for fact in facts:
            self.strata.setdefault(fact.patient, set()).add((fact.modality, fact.region or ""))

    def finish(self, split: Mapping[str, str], **about: Any) -> Manifest:
        """Write the table and the manifest, and rename the folder; returns the manifest.

        ``split`` is patient → ``"train"`` or ``"test"``, ``about`` are fields of `Manifest`.
        """
        if unknown := sorted(set(self.strata) - set(split)):
            raise MedvarError(f"Patient {unknown[0]} is missing in the split.")
        with self._writing():
            if self._image_file is not None:
                self._finish_shard(self._image_file)
            self._write_rows()
            self._rows.close()
            self._rows_file.close()
            entry = write_table(self._partial / TABLE, self._batches)
            self._rows_path.unlink()
            groups = tally(read_table(self._partial / TABLE))
            manifest = Manifest(
                size=self.size,
                split={patient: side for patient, side in split.items() if patient in self.strata},
                shards=self._shards,
                table=entry,
                counts=counts(groups, split),
                sources=sources(groups),
                structures=to_dicts(self.structures),
                **about,
            )
            manifest.write(self._partial)
            replace_folder(self._partial, self.folder)
        return manifest

    def _places(self, count: int) -> Iterable[tuple[int, int]]:
        first = len(self._shards) * self.shard_slices + (self._image_file.slices if self._image_file else 0)
        return (divmod(number, self.shard_slices) for number in range(first, first + count))

    def _check_masks(self, masks: MaskArray | None, codes: CodeArray) -> None:
        if masks is None and not self.structures:
            return
        if masks is None or masks.shape != codes.shape or masks.dtype != np.uint8:
            found = "there are none" if masks is None else f"they are {masks.dtype} {masks.shape}"
            raise MedvarError(f"Masks of {len(codes)} slices, uint8 {codes.shape}, are expected, but {found}.")
        if masks.size and masks.max() > len(self.structures):
            raise MedvarError(f"A mask has the value {masks.max()}, but there are {len(self.structures)} structures.")

    def _write_images(self, codes: CodeArray, masks: MaskArray | None) -> None:
        while len(codes):
            if self._image_file is None:
                number = len(self._shards)
                self._image_file = ImageFile(self._partial / shard_name(number), self.size)
                if self.structures:
                    self._mask_file = ImageFile(self._partial / mask_name(number), self.size, "|u1")
            room = self.shard_slices - self._image_file.slices
            self._image_file.write(codes[:room])
            if self._mask_file is not None and masks is not None:
                self._mask_file.write(masks[:room])
                masks = masks[room:]
            codes = codes[room:]
            if self._image_file.slices == self.shard_slices:
                self._finish_shard(self._image_file)

    def _finish_shard(self, image_file: ImageFile) -> None:
        entry = image_file.finish()
        if self._mask_file is not None:
            masks = self._mask_file.finish()
            entry["masks"] = {"file": masks["file"], "sha256": masks["sha256"]}
        self._shards.append(entry)
        self._image_file = self._mask_file = None

    def _write_rows(self) -> None:
        for batch in pa.Table.from_batches(self._held, PLAIN).combine_chunks().to_batches():
            self._rows.write_batch(batch)
        self._held = []

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with self._rows_path.open("rb") as file, pa.ipc.open_stream(file) as reader:
            yield from reader

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Refuse to write after a failure, because images and rows may be inconsistent."""
        if self._failed:
            raise MedvarError(f"Writing {self.folder} failed before; nothing was kept.")
        self._failed = True
        with writing(self.folder, "nothing was kept"):
            yield
        self._failed = False
