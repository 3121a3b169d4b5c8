"""Reads ``index.csv``, which describes the scans of a folder if their headers are not sufficient."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.errors import MedvarError
from medvar_engine.untrusted import plain_csv
from medvar_engine.untrusted.plain_csv import Cells

INDEX = "index.csv"
REQUIRED = ("path", "patient", "modality", "region")


@dataclass(frozen=True, slots=True)
class IndexRow:
    """The description of one file, or of all files below one folder. ``path`` is relative to the index."""

    path: str
    patient: str
    modality: str
    region: str
    contrast: str
    source: str
    licence: str

    @property
    def dataset(self) -> str | None:
        """A short label of the source: its first word, as a slug."""
        return normal_label(re.split(r"[\s/,;(]", self.source.strip(), maxsplit=1)[0]) or None


def normal_label(text: str) -> str:
    """A label of a condition in lower case, with hyphens for everything except letters and digits."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def one_contrast(text: str) -> str:
    """The contrast ``text``, or nothing if it names several with slashes between them: the slice has one of these."""
    return "" if "/" in text else text


def normal_modality(text: str) -> str:
    """``CT`` or ``MR``. Raises `MedvarError` for anything else."""
    found = {"CT": "CT", "MR": "MR", "MRI": "MR"}.get(text.strip().upper())
    if found is None:
        raise MedvarError(f"Unknown modality {text!r}; it is CT or MR.")
    return found


Index = Mapping[str, IndexRow]
"""The rows by path."""


def read_index(folder: Path) -> Index:
    """Read the ``index.csv`` of a folder; empty without the file. The first of several rows with one path counts."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    names = plain_csv.columns(path)
    if missing := [name for name in REQUIRED if name not in names]:
        raise MedvarError(f"{path}: columns {missing} are missing; {', '.join(REQUIRED)} are needed.")
    index: dict[str, IndexRow] = {}
    for line, cells in plain_csv.rows(path):
        row = _row(path, line, cells)
        index.setdefault(Path(row.path).as_posix(), row)
    return index


def find_row(index: Index, folder: Path, path: Path) -> IndexRow | None:
    """The row of a file, or of the nearest folder above it; None without one."""
    return next((index[name] for name in names_of(folder, path) if name in index), None)


def names_of(folder: Path, path: Path) -> Iterator[str]:
    """The paths of rows that apply to ``path``, nearest first, such as ``a.zip`` for ``a.zip!/b``."""
    inside = path.relative_to(folder)
    outside = Path(*(part.removesuffix("!") for part in inside.parts))
    for names in zip((inside, *inside.parents), (outside, *outside.parents), strict=True):
        yield from (name.as_posix() for name in names)


def _row(path: Path, line: int, cells: Cells) -> IndexRow:
    def cell(name: str) -> str:
        return sys.intern(cells.get(name, ""))  # most cells of a column are alike

    for name in REQUIRED:
        if not cell(name):
            raise MedvarError(f"{path}, line {line}: {name} is empty.")
    if Path(cell("path")).is_absolute() or ".." in Path(cell("path")).parts:
        raise MedvarError(f"{path}, line {line}: path {cell('path')!r} must lie inside the folder.")
    try:
        modality = normal_modality(cell("modality"))
    except MedvarError as error:
        raise MedvarError(f"{path}, line {line}: {error}") from error
    return IndexRow(
        cell("path"),
        cell("patient"),
        modality,
        normal_label(cell("region")),
        one_contrast(cell("contrast")),
        cell("source"),
        cell("licence"),
    )
