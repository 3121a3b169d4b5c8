"""Exports: what WebDataset and LitData read back is what was prepared."""

from __future__ import annotations

import errno
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import pytest
import webdataset

from medvar_engine.data.adapters.litdata import export_litdata
from medvar_engine.data.adapters.webdataset import export_webdataset
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError

Prepared = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, prepared: Prepared) -> Path:
    return prepared(tmp_path / "a", ["ct1", "mr1", "ct2", "mr2"], holdout=("ct2",), slices=4)


def check(found: list[tuple[np.ndarray, dict[str, Any]]], dataset: SliceDataset) -> None:
    """Every slice of ``dataset`` once, with its facts; and not in the order of the table."""
    rows = list(dataset.rows)
    places = [
        next(
            i
            for i, row in enumerate(rows)
            if (row.patient, row.position_mm) == (facts["patient"], facts["position_mm"])
        )
        for _, facts in found
    ]
    assert sorted(places) == list(range(len(rows)))
    assert places != sorted(places)
    for (image, facts), place in zip(found, places, strict=True):
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image, dataset.codes(place))
        row = rows[place]
        assert facts.pop("fingerprint") == row.fingerprint.hex()
        assert facts == {name: getattr(row, name) for name in facts}
        assert len(facts) == 16


def test_webdataset_reads_it(folder: Path, tmp_path: Path) -> None:
    """Breaks for training from a store of tar files: pixels of 16 bits and facts must come through its own decoders."""
    paths = export_webdataset(folder, tmp_path / "out", tar_slices=5)
    assert [path.name for path in paths] == [
        "test-000000.tar",
        "train-000000.tar",
        "train-000001.tar",
        "train-000002.tar",
    ]
    for split in ("train", "test"):
        urls = [str(path) for path in paths if path.name.startswith(split)]
        samples = webdataset.WebDataset(urls, shardshuffle=False).decode().to_tuple("npy", "json")
        check(list(samples), SliceDataset(folder, split))


def test_litdata_reads_it(folder: Path, tmp_path: Path) -> None:
    """Breaks for training from a cloud store."""
    for path in export_litdata(folder, tmp_path / "out", chunk_bytes=2000):
        stream = litdata.StreamingDataset(str(path), cache_dir=str(tmp_path / "cache" / path.name))
        samples = [stream[i] for i in range(len(stream))]
        check([(one["image"], json.loads(one["facts"])) for one in samples], SliceDataset(folder, path.name))
    assert len(list((tmp_path / "out" / "train").glob("*.bin"))) > 1


def test_an_export_is_reproducible_and_attributed(folder: Path, tmp_path: Path) -> None:
    """Breaks for caches by hash, and for licences that ask to be named wherever the images go."""
    seen: list[tuple[str, int, int]] = []
    first = export_webdataset(folder, tmp_path / "one", progress=lambda *what: seen.append(what))
    second = export_webdataset(folder, tmp_path / "two")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert seen == [("writing", 0, 16), ("done", 16, 16)]
    about = json.loads((tmp_path / "one" / "about.json").read_text(encoding="utf-8"))
    assert about["sources"][0]["licence"] == "CC BY 4.0"
    assert about["split"]["ct2"] == "test"
    with tarfile.open(first[0]) as tar:
        assert tar.getnames()[1] == tar.getnames()[0].replace(".npy", ".json")


@pytest.mark.parametrize("export", [export_webdataset, export_litdata])
def test_an_export_is_complete_or_absent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: Callable[[Path, Path], list[Path]]
) -> None:
    """Breaks for full disks: half an export would be trained on as if it were all."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MedvarError, match=r"No space left on device.; nothing was kept"):
            export(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    with pytest.raises(MedvarError, match="not empty"):
        export(folder, folder)
    with pytest.raises(MedvarError, match="does not contain prepared slices"):
        export(tmp_path / "nothing", tmp_path / "out")
    export(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]
