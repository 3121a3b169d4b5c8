"""YAML and NumPy files of strangers, and temporaries beside files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.storage import create_file, temporary_of, write_files
from medvar_engine.untrusted import plain_yaml
from medvar_engine.untrusted.plain_npy import open_npy


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "[" * 200 + "]" * 200,
        "{a: " * 200 + "1" + "}" * 200,
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "day: 2026-13-45",
        "a: !!python/object/apply:os.system [ls]",
        "a: [",
        "\t- a",
        "x" * 300_000,
    ],
)
def test_odd_yaml_gives_one_type_of_error(text: str) -> None:
    """Each would give an error of its own, and a few lines of aliases gigabytes."""
    with pytest.raises(ValueError, match=r"."):
        plain_yaml.loads(text)


def test_plain_yaml_is_read() -> None:
    """Settings must be read as ever."""
    assert plain_yaml.loads("a: [1, {b: 1.5}]\nc: 'x*y'\n") == {"a": [1, {"b": 1.5}], "c": "x*y"}


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<u2', 'fortran_order': False, 'shape': (1000000, 1000000)}",
        b"{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 4)}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (4,)}",
        b"{'descr': '<u2', 'shape': (4,)}",
        b"(" * 900,
        b"[" * 9000,
        b"{'descr': '<u99', 'fortran_order': False, 'shape': (4,)}",
        b"\xff" * 20,
        b"__import__('os').system('ls')",
    ],
)
def test_odd_array_headers_give_one_type_of_error(tmp_path: Path, header: bytes) -> None:
    """A header is Python's text, and fails in as many ways."""
    padded = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + b"\0" * 8)
    with pytest.raises(ValueError, match=r"."):
        open_npy(path)


def test_arrays_are_read(tmp_path: Path) -> None:
    """Honest arrays are mapped, and cannot be changed by accident."""
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    found = open_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 5]])
    assert not found.flags.writeable
    with pytest.raises(OSError, match="No such"):
        open_npy(tmp_path / "none.npy")


@pytest.mark.skipif(os.name != "posix", reason="links and processes of POSIX")
def test_links_are_not_followed_and_leftovers_are_removed(tmp_path: Path) -> None:
    """Who may write beside a file would have another one overwritten, and killed processes fill the disk."""
    precious, path = tmp_path / "precious", tmp_path / "a[1].txt"
    precious.write_text("mine")
    temporary_of(path).symlink_to(precious)
    left, alive = tmp_path / ".a[1].txt.4194305.tmp", tmp_path / f".a[1].txt.{os.getppid()}.tmp"
    for one in (left, alive):
        one.write_text("half")
    write_files({path: b"new"})
    assert precious.read_text() == "mine"
    assert path.read_bytes() == b"new"
    assert not path.is_symlink()
    assert not left.exists()
    assert alive.exists()
    with create_file(tmp_path / "b") as file:
        file.write(b"1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MedvarError, match="folder"):
        write_files({tmp_path / "folder": b""})
