"""`Manifest`: the content of a folder of shards. Only files that it lists belong to the folder."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medvar_engine.data.shards.image_file import mask_name, shard_name
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import Structures, from_dicts
from medvar_engine.storage import replace_file, sha256_of
from medvar_engine.untrusted import plain_json
from medvar_engine.untrusted.check_fields import first_error, sentence

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
_MOST = 2**28  # bytes, for the names and marks of all patients
_SET = "set.json"  # the manifest of a synthetic dataset
_OURS = re.compile(r"(images|masks)-\d+\.npy|slices(-\d+)?\.arrow")


_OF_COUNTS = {"modality": str, "split": str, "slices": int, "patients": int}
_OF_SOURCES = {"licence": str, "patients": list, "slices": int}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a folder of shards, its origin, and what was left out.

    ``patient_ids`` is the kind of patient ids: ``"public"``, or the id of the key of pseudonyms; several in merged
    folders. ``marks`` are keyed hashes by which names are recognised as one patient, see
    `medvar_engine.data.identity.same_patient.marks_of`; ``one_patient`` are groups of names of one patient. ``table``
    and each of ``shards`` have ``file``, ``slices`` and ``sha256``. ``split`` is patient → train or test; slices follow
    their patient, so no patient is on both sides. ``given_split`` are the patients with a side given with the data,
    which merging and appending keep. ``structures`` are the structures of masks, in the order of their values from 1
    up; if there are any, each of ``shards`` lists its ``masks`` with file and sha256.
    """

    size: int
    recipe: dict[str, Any] = field(default_factory=dict)
    counts: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    split: dict[str, str] = field(default_factory=dict)
    given_split: list[str] = field(default_factory=list)
    patient_ids: list[str] = field(default_factory=list)
    marks: dict[str, list[str]] = field(default_factory=dict)
    one_patient: list[list[str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)
    table: dict[str, Any] = field(default_factory=dict)
    structures: list[dict[str, str]] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @property
    def masks(self) -> Structures:
        """The structures of masks; empty if slices have no masks."""
        return from_dicts(self.structures)

    @property
    def slices(self) -> int:
        """The number of slices in all shards."""
        return sum(int(shard["slices"]) for shard in self.shards)

    @property
    def files(self) -> dict[str, str]:
        """The name and sha256 of every file except the manifest."""
        masks = [shard["masks"] for shard in self.shards if "masks" in shard]
        return {str(entry["file"]): str(entry["sha256"]) for entry in (self.table, *self.shards, *masks)}

    @property
    def digest(self) -> str:
        """A digest that changes whenever anything in the folder changes."""
        return sha256_of(self._content())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder. Raises `MedvarError` when it is missing, damaged or of another version."""
        path = folder / MANIFEST
        if not path.is_file():
            raise MedvarError(_missing(folder))
        try:
            values = plain_json.read(path, most=_MOST)
            version = values["schema_version"]
            if version != SCHEMA_VERSION:
                raise MedvarError(
                    f"{path}: schema_version is {version}; this version of medvar reads {SCHEMA_VERSION}. "
                    "Prepare the data again with `medvar prepare`."
                )
            known = {one.name for one in fields(cls)}
            manifest = _checked_kinds().validate_python({name: values[name] for name in known & set(values)})
            manifest._check()
        except ValidationError as error:
            what = sentence(first_error(error), {})
            raise MedvarError(f"{path} is damaged: {what} Prepare the data again.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MedvarError(f"{path} is damaged ({error}). Prepare the data again.") from error
        return manifest

    def write(self, folder: Path) -> None:
        """Replace the manifest of a folder in one step; the folder then consists of the files that it lists."""
        replace_file(folder / MANIFEST, self._content())

    def _content(self) -> bytes:
        values = asdict(self)
        if not self.structures:  # the format without masks is unchanged
            del values["structures"]
        return json.dumps(values, indent=1, ensure_ascii=False).encode("utf-8")

    def _check(self) -> None:
        if self.size < 1:
            raise ValueError(f"size {self.size!r}")
        for kinds, rows in ((_OF_COUNTS, self.counts), (_OF_SOURCES, self.sources)):
            for row in rows:
                if odd := [name for name, kind in kinds.items() if not isinstance(row.get(name), kind)]:
                    raise ValueError(f"{odd[0]} is {row.get(odd[0])!r} in counts or sources")
        for number, shard in enumerate(self.shards):
            if shard["file"] != shard_name(number) or not isinstance(shard["slices"], int) or shard["slices"] < 0:
                raise ValueError(f"shard {number} is {shard!r}")
            if shard.get("masks", {"file": None})["file"] != (mask_name(number) if self.masks else None):
                raise ValueError(f"the masks of shard {number} are {shard.get('masks')!r}")
        if not _OURS.fullmatch(self.table["file"]) or self.table["slices"] != self.slices:
            raise ValueError(f"{self.slices} slices in shards, but the table is {self.table!r}")
        if wrong := set(self.split.values()) - {"train", "test"}:
            raise ValueError(f"split {wrong.pop()!r}")
        if not all(self.files.values()):
            raise ValueError("a sha256 is empty")


@cache
def _checked_kinds() -> TypeAdapter[Manifest]:
    """Checks the kinds of all values; made once, because that takes longer than reading a manifest."""
    return TypeAdapter(Manifest)


def remove_unnamed(folder: Path, manifest: Manifest) -> None:
    """Remove shards and tables that the manifest does not list: old ones, or those of an interrupted change."""
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in manifest.files:
            with contextlib.suppress(OSError):  # Windows does not remove files in use; the next change removes them
                path.unlink()


def _missing(folder: Path) -> str:
    if (folder / _SET).is_file():
        return (
            f"{folder} is a synthetic dataset, which cannot be used as prepared slices. To train on it "
            "nevertheless, make slices with `medvar_engine.sets.to_slices.to_slices`."
        )
    aside = sorted(folder.absolute().parent.glob(f".{folder.name}-old-*"))
    if aside and not folder.exists():
        return (
            f"{folder} is missing, because overwriting it was interrupted. Its slices are complete in {aside[0]}. "
            "Rename that folder back."
        )
    return f"{folder} has no {MANIFEST}, so it does not contain prepared slices. Make them with `medvar prepare`."
