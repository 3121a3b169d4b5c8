"""JSON of strangers: numbers are finite, and nothing takes more memory than it may honestly need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medvar_engine.untrusted import plain_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "NaN"),
        ("[-Infinity]", "Infinity"),
        ('{"low": 1e400}', "too large"),
        ("[" * 5000 + "]" * 5000, "deep"),
        ("[" * 200 + "]" * 200, "deep"),
        ('{"a":' * 200 + "1" + "}" * 200, "deep"),
        ("[" + "[]," * 600_000 + "1]", "lists and objects"),
        ("[" + "1," * 2_500_000 + "1]", "values"),
        ("[" + "12345," * 6_100_000 + "1]", "at most 6000000"),
        ("[" + '"a",' * 1_300_000 + "1]", "texts"),
        ("{", "Expecting"),
        (b"\xff", "decode"),
        ("1" * 5000, "digits"),
        ("1" * 400, "too large"),
    ],
)
def test_invalid_json_is_refused(text: str | bytes, said: str) -> None:
    """Breaks for whoever opens a stranger's file: a number that cannot be saved again, or memory without end."""
    with pytest.raises(ValueError, match=said):
        plain_json.loads(text)


def test_plain_json_is_read(tmp_path: Path) -> None:
    """Breaks for everybody: honest files must be read as ever."""
    assert plain_json.loads('{"a": [1, 2.5, -1e-9, null, "NaN"]}') == {"a": [1, 2.5, -1e-9, None, "NaN"]}
    assert plain_json.loads(b"[" + b"[[1]]," * 1000 + b"[]]")[0] == [[1]]
    path = tmp_path / "a.json"
    path.write_text('"Zürich"', encoding="utf-8")
    assert plain_json.read(path) == "Zürich"
    with pytest.raises(ValueError, match="at most 4"):
        plain_json.read(path, most=4)
    with pytest.raises(OSError, match="No such"):
        plain_json.read(tmp_path / "none.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Breaks for a folder that somebody else may write to: a pipe would hang the program for ever."""
    os.mkfifo(tmp_path / "bundle.json")
    with pytest.raises(ValueError, match="regular file"):
        plain_json.read(tmp_path / "bundle.json")
