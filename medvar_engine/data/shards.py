"""Shards: slices as 16-bit arrays that are read by memory map, with a table of what each slice is.

A folder holds ``manifest.json``, ``slices.csv`` (one row a slice) and ``images-00000.npy``, …: uint16 arrays of shape
(N, size, size) in which 0…65535 stand for -1…1. It is written under a temporary name and renamed when complete.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from medvar_engine.data.codes import CodeArray
from medvar_engine.data.facts import SliceFacts
from medvar_engine.errors import MedvarError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
TABLE = "slices.csv"
SHARD_SLICES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRow(SliceFacts):
    """One row of the table: what a slice is, where it lies in the shards, and whose turn it is, train or test."""

    index: int
    shard: int
    row: int
    split: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of shards holds, how it was made, from what, and what was left out."""

    size: int
    recipe: dict[str, Any] = field(default_factory=dict)
    counts: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    split: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)
    table_sha256: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def slices(self) -> int:
        """Slices in all shards."""
        return sum(int(shard["slices"]) for shard in self.shards)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder. Raises `MedvarError` when it is missing, damaged or of another version."""
        path = folder / MANIFEST
        if not path.is_file():
            raise MedvarError(f"{folder} holds no {MANIFEST}, so no prepared slices. `medvar prepare` makes them.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values["schema_version"]
            if version != SCHEMA_VERSION:
                raise MedvarError(f"{path}: schema_version is {version}; this version reads {SCHEMA_VERSION}.")
            known = {one.name for one in fields(cls)}
            manifest = cls(**{name: value for name, value in values.items() if name in known})
            if not isinstance(manifest.size, int) or manifest.size < 1 or manifest.slices < 0:
                raise ValueError(f"size {manifest.size!r}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MedvarError(f"{path} is damaged ({error}). Prepare the data again.") from error
        return manifest


class ShardWriter:
    """Writes a folder of shards; use as a context manager, and call `finish` at its end.

    Left without `finish`, by an exception or otherwise, it removes what it wrote: ``folder`` is complete or not there.
    """

    def __init__(self, folder: Path, size: int, *, overwrite: bool = False, shard_slices: int = SHARD_SLICES) -> None:
        _check_output(folder, overwrite)
        self.folder = folder
        self.size = size
        self.shard_slices = shard_slices
        self.rows: list[SliceRow] = []
        self._shards: list[dict[str, Any]] = []
        self._pending: list[CodeArray] = []
        self._partial = _beside(folder, "partial")
        with _writing(folder):
            self._partial.mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, codes: CodeArray, facts: Sequence[SliceFacts]) -> None:
        """Append slices (N, size, size), and what each is."""
        if codes.shape != (len(facts), self.size, self.size) or codes.dtype != np.uint16:
            raise MedvarError(
                f"{len(facts)} slices of {self.size}×{self.size} uint16 codes are expected, but got {codes.dtype} "
                f"{codes.shape}."
            )
        for code, fact in zip(codes, facts, strict=True):
            place: dict[str, Any] = {"index": len(self.rows), "shard": len(self._shards), "row": len(self._pending)}
            self.rows.append(SliceRow(**asdict(fact), **place, split=""))
            self._pending.append(code)
            if len(self._pending) == self.shard_slices:
                with _writing(self.folder):
                    self._flush()

    def finish(self, split: Mapping[str, str], **about: Any) -> Manifest:
        """Write the table and the manifest, and give the folder its name. ``about`` are fields of `Manifest`."""
        with _writing(self.folder):
            self._flush()
            rows = [replace(row, split=split[row.patient]) for row in self.rows]
            table = self._partial / TABLE
            with table.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow([one.name for one in fields(SliceRow)])
                writer.writerows([_to_text(getattr(row, one.name)) for one in fields(SliceRow)] for row in rows)
                _flush_to_disk(file)
            manifest = Manifest(
                size=self.size,
                split=dict(split),
                shards=self._shards,
                table_sha256=_sha256(table),
                counts=count(rows),
                sources=_sources(rows),
                **about,
            )
            with (self._partial / MANIFEST).open("w", encoding="utf-8") as file:
                json.dump(asdict(manifest), file, indent=1, ensure_ascii=False)
                _flush_to_disk(file)
            _replace_folder(self._partial, self.folder)
        return manifest

    def _flush(self) -> None:
        if not self._pending:
            return
        name = shard_name(len(self._shards))
        with (self._partial / name).open("wb") as file:
            np.save(file, np.stack(self._pending), allow_pickle=False)
            _flush_to_disk(file)
        entry = {"file": name, "slices": len(self._pending), "sha256": _sha256(self._partial / name)}
        self._shards.append(entry)
        self._pending = []


def _flush_to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"images-{number:05d}.npy"


def read_rows(folder: Path) -> Iterator[SliceRow]:
    """The table, row by row. Raises `MedvarError` naming the line that is damaged."""
    path = folder / TABLE
    names = [one.name for one in fields(SliceRow)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if header != names:
                raise MedvarError(f"{path}: the columns are {header}; expected {names}. Prepare the data again.")
            for cells in reader:
                try:
                    yield _from_text(dict(zip(names, cells, strict=True)))
                except ValueError as error:
                    raise MedvarError(f"{path}, line {reader.line_num}: damaged row ({error}).") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MedvarError(f"{path} cannot be read ({error}). Prepare the data again.") from error


def open_shard(folder: Path, number: int, slices: int, size: int) -> CodeArray:
    """One shard as a read-only memory map (N, size, size). Raises `MedvarError` when it is missing or truncated."""
    path = folder / shard_name(number)
    try:
        array: CodeArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MedvarError(f"{path} is missing or truncated ({error}). Prepare the data again.") from error
    if array.shape != (slices, size, size) or array.dtype != np.uint16:
        raise MedvarError(
            f"{path} holds {array.dtype} {array.shape}, but the manifest says uint16 {(slices, size, size)}. "
            "Prepare the data again."
        )
    return array


def verify(folder: Path) -> None:
    """Compare every file's sha256 with the manifest. Raises `MedvarError` naming the first file that differs."""
    manifest = Manifest.read(folder)
    wanted = {str(shard["file"]): str(shard["sha256"]) for shard in manifest.shards} | {TABLE: manifest.table_sha256}
    for name, digest in wanted.items():
        if not (folder / name).is_file() or _sha256(folder / name) != digest:
            raise MedvarError(f"{folder / name} is missing or not as it was written (sha256). Prepare the data again.")


def count(rows: Iterable[SliceRow]) -> list[dict[str, Any]]:
    """Slices and patients of each modality × region × plane × split."""
    cells: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        cells.setdefault((row.modality, row.region or "", row.plane or "", row.split), []).append(row.patient)
    return [
        {
            "modality": modality,
            "region": region or None,
            "plane": plane or None,
            "split": split,
            "slices": len(patients),
            "patients": len(set(patients)),
        }
        for (modality, region, plane, split), patients in sorted(cells.items())
    ]


def _sources(rows: Iterable[SliceRow]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[SliceRow]] = {}
    for row in rows:
        found.setdefault((row.source, row.licence), []).append(row)
    return [
        {
            "source": source,
            "licence": licence or "not stated",
            "attribution": f"{source} ({licence})" if licence else source,
            "dataset": members[0].dataset,
            "patients": sorted({row.patient for row in members}),
            "slices": len(members),
        }
        for (source, licence), members in sorted(found.items())
    ]


def _check_output(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise MedvarError(f"{folder} is a file; a folder is expected.")
    if not overwrite:
        raise MedvarError(f"{folder} is not empty. Choose another folder, or ask for it to be overwritten.")
    if not (folder / MANIFEST).is_file():
        raise MedvarError(f"{folder} holds no {MANIFEST}, so it is not overwritten: it may be somebody's data.")


def _replace_folder(partial: Path, folder: Path) -> None:
    """Give ``partial`` the name ``folder``; an older one is put aside until the new one is there."""
    aside = _beside(folder, "old")
    if folder.exists():
        folder.rename(aside)
    try:
        partial.rename(folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):  # a folder cannot be opened on Windows
        handle = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _beside(folder: Path, what: str) -> Path:
    """A hidden name in the same parent, so that renaming to ``folder`` moves no bytes."""
    return folder.absolute().parent / f".{folder.name}-{what}-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say where it was when the disk is full or may not be written to."""
    try:
        yield
    except OSError as error:
        raise MedvarError(f"{folder} cannot be written ({error.strerror or error}); nothing was kept.") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _from_text(cells: Mapping[str, str]) -> SliceRow:
    values: dict[str, Any] = dict(cells)
    for name in ("index", "shard", "row"):
        values[name] = int(cells[name])
    for name in ("low", "high"):
        values[name] = float(cells[name])
    for name in ("spacing_mm", "position_mm"):
        values[name] = float(cells[name]) if cells[name] else None
    for name in ("region", "plane", "dataset", "contrast"):
        values[name] = cells[name] or None
    values["fingerprint"] = bytes.fromhex(cells["fingerprint"])
    return SliceRow(**values)
