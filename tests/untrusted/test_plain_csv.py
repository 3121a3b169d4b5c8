"""Tables of strangers: read row by row, or refused in one kind of error."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.untrusted import plain_csv


def table(folder: Path, text: str) -> Path:
    path = folder / "a.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_cells_come_by_column(tmp_path: Path) -> None:
    """Spaces, blank rows, missing and surplus cells are as spreadsheets write them."""
    path = table(tmp_path, "\ufeffa , b\n1, 2\n\n , \n3\n4,5,6\n")
    assert plain_csv.columns(path) == ["a", "b"]
    assert list(plain_csv.rows(path)) == [
        (2, {"a": "1", "b": "2"}),
        (5, {"a": "3", "b": ""}),
        (6, {"a": "4", "b": "5", "": "more"}),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n" + "1\n" * 120_000, "rows"),
        (",".join(map(str, range(2000))) + "\n1\n", "columns"),
        ('a,b\n"' + "1,\n" * 100_000, "cannot be read"),
        ("a,b\n" + "x" * 200_000, "cannot be read"),
    ],
)
def test_tables_without_measure_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """Breaks for a server: a row of two bytes takes hundreds in memory, and a column some in every row."""
    path = table(tmp_path, text)
    with pytest.raises(MedvarError, match=words):
        list(plain_csv.rows(path))
