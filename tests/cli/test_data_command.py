"""`medvar data` as a person calls it: results, messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvar_engine.data.shards import Manifest

Prepared = Callable[..., Path]
Medvar = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, prepared: Prepared) -> Path:
    return prepared(tmp_path / "a", ["ct1", "ct2", "ct3", "mr1"])


def test_list_prints_counts(medvar: Medvar, folder: Path) -> None:
    """Nobody could see what a folder holds without opening its files."""
    assert medvar("data", "list", folder).lines == [
        "modality  region  plane  split  slices  patients",
        "CT        chest   axial  test        3         1",
        "CT        chest   axial  train       6         2",
        "MR        brain   axial  train       3         1",
        "12 slices of 8×8 pixels, 4 patients",
    ]


def test_verify(medvar: Medvar, folder: Path) -> None:
    """A script that copies slices could not tell whether they arrived."""
    run = medvar("data", "verify", folder)
    assert (run.code, run.lines) == (0, [f"{folder}: 12 slices are unchanged."])
    for name in ("images-00000.npy", "slices.arrow"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    run = medvar("data", "verify", folder)
    assert (run.code, run.out) == (1, "")
    assert "slices.arrow was changed after it was written; images-00000.npy was changed after it was written" in run.err


def test_append_merge_and_split(medvar: Medvar, folder: Path, prepared: Prepared, tmp_path: Path) -> None:
    """Data that grows could not be kept in order from a terminal."""
    more = prepared(tmp_path / "b", ["mr2", "mr3"], seed=1)
    run = medvar("data", "merge", folder, more, tmp_path / "out")
    assert (run.code, run.lines) == (0, [str(tmp_path / "out")])
    assert Manifest.read(tmp_path / "out").slices == 18
    run = medvar("data", "append", folder, more)
    assert (run.code, run.lines) == (0, [str(folder)])
    assert "18 slices of 8×8 pixels, 6 patients" in run.err
    run = medvar("data", "append", folder, more)
    assert (run.code, run.out) == (1, "")
    assert "already" in run.err
    run = medvar("data", "split", folder, "--holdout", "ct1", "--holdout", "mr1")
    assert (run.code, run.lines) == (0, [str(folder)])
    assert [patient for patient, side in Manifest.read(folder).split.items() if side == "test"] == ["ct1", "mr1"]
    run = medvar(
        "data", "split", folder, "--test-fraction", "0.5", "--seed", "3", "--by", "modality", "--by", "dataset"
    )
    assert run.code == 0
    assert Manifest.read(folder).recipe["strata"] == ["modality", "dataset"]
    assert list(Manifest.read(folder).split.values()).count("test") == 4


def test_exports(medvar: Medvar, folder: Path, tmp_path: Path) -> None:
    """Other training libraries could not be used from a terminal."""
    run = medvar("data", "export", "webdataset", folder, tmp_path / "tar")
    assert (run.code, run.lines) == (0, [str(tmp_path / "tar")])
    assert (tmp_path / "tar" / "train-000000.tar").is_file()
    run = medvar("data", "export", "litdata", folder, tmp_path / "lit")
    assert (run.code, run.lines) == (0, [str(tmp_path / "lit")])
    assert (tmp_path / "lit" / "train" / "index.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("list", "nowhere"), 1, "medvar prepare"),
        (("verify", "nowhere"), 1, "medvar prepare"),
        (("append", "nowhere", "{a}"), 1, "medvar prepare"),
        (("append", "{a}"), 2, "argument"),
        (("merge", "{a}"), 2, "argument"),
        (("merge", "{a}", "{a}", "out"), 1, "given twice"),
        (("merge", "{a}", "{a}"), 1, "not empty"),
        (("split", "{a}", "--holdout", "zz"), 1, "zz"),
        (("split", "{a}", "--by", "colour"), 1, "colour"),
        (("split", "{a}", "--test-fraction", "2"), 2, "test-fraction"),
        (("export", "webdataset", "{a}", "{a}"), 1, "not empty"),
        (("export", "parquet", "{a}", "out"), 2, "parquet"),
        (("shuffle", "{a}"), 2, "shuffle"),
    ],
    ids=str,
)
def test_errors_are_reported(medvar: Medvar, folder: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    """A slip would be a traceback, or would pass for success in a script."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run = medvar("data", *(argument.format(a=folder) for argument in arguments))
    assert (run.code, run.out) == (code, "")
    assert says in run.err
    assert "Traceback" not in run.err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"} == before


@pytest.mark.parametrize("verb", ["list", "verify", "append", "merge", "split", "export webdataset", "export litdata"])
def test_every_command_has_help(medvar: Medvar, verb: str) -> None:
    """Nobody could find out what a verb takes."""
    run = medvar("data", *verb.split(), "--help")
    assert run.code == 0
    assert f"Usage: medvar data {verb}" in run.out


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (("list", "{a}"), "medvar_engine.data.shards", "train"),
        (("export", "litdata", "{a}", "out"), "litdata.streaming", "litdata"),
    ],
)
def test_a_missing_extra_is_named(
    medvar: Medvar, monkeypatch: pytest.MonkeyPatch, folder: Path, arguments: tuple[str, ...], module: str, extra: str
) -> None:
    """Whoever installed only what generating needs would see an ImportError instead of the command that helps."""
    monkeypatch.setitem(sys.modules, module, None)
    run = medvar("data", *(argument.format(a=folder) for argument in arguments))
    assert run.code == 1
    assert f"pip install 'napari-medvar[{extra}]'" in run.err
