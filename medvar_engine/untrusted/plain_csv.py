"""Reads untrusted CSV tables row by row, with limits on columns, and on rows by the size of the file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from medvar_engine.errors import MedvarError

_MOST_COLUMNS = 1000
_FEW_ROWS = 100_000  # a table may always have so many, and one more for every `_ROW_BYTES` bytes
_ROW_BYTES = 32

Cells = Mapping[str, str]
"""Column → cell, without surrounding spaces. A missing cell is empty; surplus cells stand under an empty name."""


def columns(path: Path) -> list[str]:
    """The column names of a table. Raises `MedvarError` when it cannot be read."""
    return next(_table(path))[1]


def rows(path: Path) -> Iterator[tuple[int, Cells]]:
    """The line and the cells of each row that is not blank. Raises `MedvarError` when the table cannot be read."""
    table = _table(path)
    names = next(table)[1]
    blank = dict.fromkeys(names, "")
    for line, values in table:
        surplus = {"": "more"} if len(values) > len(names) else {}
        yield line, {**blank, **dict(zip(names, values, strict=False)), **surplus}


def _table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The names of the columns, and then the values of each row, with their lines."""
    try:
        most = _FEW_ROWS + path.stat().st_size // _ROW_BYTES
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)  # otherwise an unclosed quote hides all following rows
            names = [name.strip() for name in next(reader, [])]
            if len(names) > _MOST_COLUMNS:
                raise MedvarError(f"{path} has {len(names)} columns, and at most {_MOST_COLUMNS} are read.")
            yield 1, names
            for number, values in enumerate(reader):
                if number >= most:
                    raise MedvarError(f"{path} has more than {most} rows, which is too many for its size.")
                stripped = [value.strip() for value in values]
                if any(stripped):
                    yield reader.line_num, stripped
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MedvarError(f"{path} cannot be read ({error}).") from error
