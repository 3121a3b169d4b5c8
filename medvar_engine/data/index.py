"""``index.csv``: what the scans of a folder are, where their headers do not say it."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.errors import MedvarError

INDEX = "index.csv"
REQUIRED = ("path", "patient", "modality", "region")


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What one file, or all files below one folder, are. ``path`` is relative to the index."""

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
        return slug(re.split(r"[\s/,;(]", self.source.strip(), maxsplit=1)[0]) or None

    def covers(self, path: Path) -> bool:
        """Whether the row stands for ``path``, relative to the index: ``a.zip`` for ``a.zip!/b`` inside it, too."""
        outside = Path(*(part.removesuffix("!") for part in path.parts))
        return path.is_relative_to(self.path) or outside.is_relative_to(self.path)


def slug(text: str) -> str:
    """Lower case, and hyphens for all but letters and digits."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def normal_modality(text: str) -> str:
    """``CT`` or ``MR``. Raises `MedvarError` for anything else."""
    found = {"CT": "CT", "MR": "MR", "MRI": "MR"}.get(text.strip().upper())
    if found is None:
        raise MedvarError(f"Unknown modality {text!r}; it is CT or MR.")
    return found


def read_index(folder: Path) -> list[IndexRow]:
    """The rows of ``index.csv`` in a folder; none when there is no such file. Longest paths first."""
    path = folder / INDEX
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
            if missing:
                raise MedvarError(f"{path}: columns {missing} are missing; {', '.join(REQUIRED)} are needed.")
            rows = [_row(path, reader.line_num, cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MedvarError(f"{path} cannot be read ({error}).") from error
    return sorted(rows, key=lambda row: -len(Path(row.path).parts))


def find_row(rows: list[IndexRow], folder: Path, path: Path) -> IndexRow | None:
    """The row of the file, or of the nearest folder above it."""
    relative = path.relative_to(folder)
    return next((row for row in rows if row.covers(relative)), None)


def _row(path: Path, line: int, cells: dict[str, str | None]) -> IndexRow:
    def cell(name: str) -> str:
        return (cells.get(name) or "").strip()

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
        slug(cell("region")),
        cell("contrast"),
        cell("source"),
        cell("licence"),
    )
