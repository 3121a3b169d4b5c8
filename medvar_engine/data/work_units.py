"""Work units of `prepare`, and their results, which are stored in a hidden folder until the end.

A result consists of ``KEY.json``, and ``KEY.npy`` with the codes unless the whole unit was refused. The key is a digest
of everything that the slices depend on, so an existing result need not be made again. Results are written without
waiting for the disk: one that is incomplete after a power failure is recognised by its hash, and made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.identity.series_identity import Identity, relative
from medvar_engine.data.masks.label_files import ScanLabels
from medvar_engine.data.read.refusal import Refusal, reason_of
from medvar_engine.data.read.scans import Series
from medvar_engine.data.series_slices import SeriesSlices, slices_of
from medvar_engine.data.shards.image_file import ImageFile
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.slice_files import Listed, slices_of_files
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray
from medvar_engine.storage import exclusive_lock, sha256, sha256_of, writing
from medvar_engine.untrusted.plain_npy import open_npy
from medvar_engine.value_range import CodeArray

SCHEMA_VERSION = 6  # increased whenever the same series would give other slices
_KEPT = "finished series are kept; free some disk space, and run the same command again to continue"


@dataclass(frozen=True, slots=True)
class SeriesUnit:
    """A work unit of one series, with its result in ``folder``. Plain values, so that another process can do it."""

    series: Series
    identity: Identity
    recipe: Recipe
    source: Path
    folder: Path
    labels: ScanLabels | None = None

    @property
    def key(self) -> str:
        """The sha256 of the series, the state of its files, its identity, the recipe and the version of this code."""
        series = self.series
        names = (*series.paths, *series.data_files)
        made_of = {
            "schema": SCHEMA_VERSION,
            "series": series.uid,
            "names": [relative(path, self.source) for path in names],
            "files": [_state(path) for path in (names if series.archive is None else (series.archive,))],
            "identity": asdict(self.identity),
            "assumed": asdict(series.assumed),
            "recipe": self.recipe.digest(),
        }
        if self.labels is not None:
            made_of["labels"] = [
                [relative(one.path, self.source), _state(one.path), repr(one)] for one in self.labels.files
            ]
        return sha256_of(json.dumps(made_of, sort_keys=True))

    @property
    def path(self) -> Path:
        """The first file, to show to users."""
        return self.series.path

    def slices(self) -> SeriesSlices:
        """Make the slices. Raises `MedvarError` when the series cannot be used."""
        return slices_of(self.series, self.identity, self.recipe, self.source, self.labels)

    def refusals(self, result: UnitResult) -> list[Refusal]:
        """The refused files of this unit."""
        if result.refused is None:
            return []
        return [Refusal(str(self.path), result.refused.removeprefix(f"{self.path}: "))]


@dataclass(frozen=True, slots=True)
class SlicesUnit:
    """A work unit of single slices, with its result in ``folder``.

    Plain values, so that another process can do it.
    """

    files: tuple[Listed, ...]
    recipe: Recipe
    source: Path
    folder: Path
    synthetic: bool

    @property
    def key(self) -> str:
        """The sha256 of the rows of the index, the state of the files, the recipe and the version of this code."""
        made_of = {
            "schema": SCHEMA_VERSION,
            "names": [relative(file.path, self.source) for file, _ in self.files],
            "files": [_state(file.path) for file, _ in self.files],
            "index": [{**asdict(file), "path": ""} for file, _ in self.files],
            "identities": [asdict(identity) for _, identity in self.files],
            "recipe": self.recipe.digest(),
            "synthetic": self.synthetic,
        }
        return sha256_of(json.dumps(made_of, sort_keys=True))

    @property
    def path(self) -> Path:
        """The last file, to show to users."""
        return self.files[-1][0].path

    def slices(self) -> SeriesSlices:
        """Make the slices."""
        return slices_of_files(self.files, self.recipe, self.source, synthetic=self.synthetic)

    def refusals(self, result: UnitResult) -> list[Refusal]:
        """The refused files of this unit."""
        if result.refused is not None:
            return [Refusal(str(file.path), result.refused) for file, _ in self.files]
        return [Refusal(str(self.source / name), why) for name, why in result.left_out]


@dataclass(frozen=True, slots=True)
class UnitResult:
    """The result ``key`` of a work unit: the number of slices, or the reason why all were refused.

    ``left_out`` are single files that were not used, by their names relative to the source, with the reasons.
    """

    key: str
    slices: int
    refused: str | None = None
    left_out: tuple[tuple[str, str], ...] = ()


@contextlib.contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """The folder of the results for ``out``, locked for one process at a time; existing results stay.

    Raises `MedvarError` when another process holds the lock.
    """
    folder = out.absolute().parent / f".{out.name}.parts"
    holder = folder / "holder"
    with contextlib.ExitStack() as held:
        with writing(out, "it was not changed"):
            folder.mkdir(parents=True, exist_ok=True)
            who = holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
            held.enter_context(
                exclusive_lock(folder / ".lock", f"{out} is being written by {who}. Wait until that process has ended.")
            )
            holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield folder


def process_unit(unit: SeriesUnit | SlicesUnit) -> UnitResult:
    """Make the result of a work unit unless it exists. For an unusable series it contains the reason.

    Raises `MedvarError` when the result cannot be written.
    """
    key = unit.key
    if (done := finished_result(unit.folder, key)) is not None:
        return done
    try:
        found = unit.slices()
    except Exception as error:  # libraries raise exceptions of any type, and no file may end a run
        return _write(unit.folder, key, {"refused": reason_of(error)})
    digest = _write_slices(unit, f"{key}.npy", found.codes, "<u2")
    of_masks = {} if found.masks is None else {"masks": _write_slices(unit, f"{key}.masks.npy", found.masks, "|u1")}
    names = [one.name for one in fields(SliceFacts)]  # `asdict` copies every value
    facts = [
        {name: getattr(one, name) for name in names} | {"fingerprint": one.fingerprint.hex()} for one in found.facts
    ]
    values = {"sha256": digest, **of_masks, "facts": facts, "remarks": found.remarks, "left_out": found.left_out}
    return _write(unit.folder, key, values)


def finished_result(folder: Path, key: str) -> UnitResult | None:
    """The result if it exists and is complete; None otherwise."""
    try:
        values = json.loads((folder / f"{key}.json").read_bytes())
        whole = "refused" in values or sha256(folder / f"{key}.npy") == values["sha256"]
        if "masks" in values:
            whole = whole and sha256(folder / f"{key}.masks.npy") == values["masks"]
        return _result(key, values) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read_result(folder: Path, result: UnitResult) -> SeriesSlices:
    """The slices of a result that was not refused; the codes are a memory map."""
    try:
        values = json.loads((folder / f"{result.key}.json").read_bytes())
        codes = open_npy(folder / f"{result.key}.npy")
        masks = open_npy(folder / f"{result.key}.masks.npy") if "masks" in values else None
    except (OSError, ValueError) as error:
        raise MedvarError(
            f"A result in {folder} was changed by another process ({error}). Run the same command again."
        ) from error
    facts = (SliceFacts(**one | {"fingerprint": bytes.fromhex(one["fingerprint"])}) for one in values["facts"])
    return SeriesSlices(codes, tuple(facts), tuple(values["remarks"]), masks=masks)


def _write_slices(unit: SeriesUnit | SlicesUnit, name: str, slices: CodeArray | MaskArray, dtype: str) -> str:
    """Write slices (N, size, size) to a file of the result; returns its sha256."""
    with _named(unit.folder, name) as temporary:
        file = ImageFile(temporary, unit.recipe.size, dtype)
        try:
            file.write(slices)
            digest: str = file.finish()["sha256"]
        finally:
            file.discard()
    return digest


def _write(folder: Path, key: str, values: dict[str, Any]) -> UnitResult:
    with _named(folder, f"{key}.json") as temporary:
        temporary.write_bytes(json.dumps(values).encode())
    return _result(key, values)


@contextlib.contextmanager
def _named(folder: Path, name: str) -> Iterator[Path]:
    """A new name to write a file to, which is called ``name`` when the block ends well, else is removed."""
    with writing(folder, _KEPT):
        temporary = folder / f"{name}.{uuid.uuid4().hex}.tmp"
        try:
            yield temporary
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)


def _result(key: str, values: dict[str, Any]) -> UnitResult:
    left_out = tuple((str(name), str(why)) for name, why in values.get("left_out", ()))
    return UnitResult(key, len(values.get("facts", ())), values.get("refused"), left_out)


def _state(path: Path) -> tuple[int, int] | None:
    """The size and modification time of a file; None if it is missing, which is reported when it is read."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns
