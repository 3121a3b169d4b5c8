"""Shards: what is written is read back, a failed write leaves nothing, damage is told."""

from __future__ import annotations

import errno
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvar_engine.conditions import Condition
from medvar_engine.data import shards
from medvar_engine.data.codes import decode, encode
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.facts import SliceFacts
from medvar_engine.data.shards import MANIFEST, TABLE, Manifest, ShardWriter, verify
from medvar_engine.errors import MedvarError

ABOUT: dict[str, Any] = {
    "patient": "p1",
    "modality": "MR",
    "region": "brain",
    "plane": "axial",
    "dataset": "set",
    "contrast": None,
    "spacing_mm": 1.25,
    "low": 3.0,
    "high": 900.5,
    "unit": "arbitrary",
    "position_mm": -12.125,
    "series": "s/1",
    "source": "a source, with comma",
    "licence": "CC BY 4.0",
    "fingerprint": bytes(32),
}


def write(folder: Path, count: int = 5, size: int = 8, **options: Any) -> np.ndarray:
    images = np.random.default_rng(0).uniform(-1, 1, (count, size, size)).astype(np.float32)
    with ShardWriter(folder, size, shard_slices=2, **options) as writer:
        for number, image in enumerate(images):
            writer.add(encode(image)[None], [SliceFacts(**ABOUT | {"patient": f"p{number % 2}"})])
        writer.finish({"p0": "train", "p1": "test"}, recipe={"size": size})
    return images


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
def test_codes_round_trip(values: list[float]) -> None:
    """Breaks for everybody: 16 bits must keep a CT window to a hundredth of an HU."""
    image = np.asarray(values, dtype=np.float32)
    decoded = decode(encode(image))
    assert decoded.dtype == np.float32
    assert np.abs(decoded - image).max() <= 1.7e-5
    assert decoded.min() >= -1
    assert decoded.max() <= 1
    np.testing.assert_array_equal(encode(decoded), encode(image))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
NAME = st.none() | st.text("abcdef-_é", min_size=1, max_size=8)
ROW = st.fixed_dictionaries(
    {
        "patient": st.sampled_from(["p1", "p2", 'p"3', "p,4"]),
        "modality": st.sampled_from(["CT", "MR"]),
        "region": NAME,
        "plane": NAME,
        "dataset": NAME,
        "contrast": NAME,
        "spacing_mm": st.none() | st.floats(0.01, 10),
        "low": st.floats(-1e4, 1e4),
        "high": st.floats(-1e4, 1e4),
        "unit": st.sampled_from(["HU", "arbitrary"]),
        "position_mm": st.none() | st.floats(-1e4, 1e4),
        "series": TEXT,
        "source": TEXT,
        "licence": TEXT,
        "fingerprint": st.binary(min_size=32, max_size=32),
    }
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=7), st.integers(1, 4))
def test_folder_round_trip(rows: list[dict[str, Any]], per_shard: int) -> None:
    """Breaks for names with commas, quotes, line breaks and umlauts, and at the borders of shards."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "slices"
        images = np.random.default_rng(1).uniform(-1, 1, (len(rows), 4, 4)).astype(np.float32)
        with ShardWriter(folder, 4, shard_slices=per_shard) as writer:
            for image, row in zip(images, rows, strict=True):
                writer.add(encode(image)[None], [SliceFacts(**row)])
            writer.finish({row["patient"]: "train" for row in rows})
        verify(folder)
        dataset = SliceDataset(folder)
        assert len(dataset) == len(rows)
        for index, row in enumerate(rows):
            assert {name: getattr(dataset.rows[index], name) for name in row} == row
            np.testing.assert_allclose(dataset[index][0][0], images[index], atol=1.7e-5)
        assert sum(one["slices"] for one in dataset.manifest.counts) == len(rows)
        assert sum(one["slices"] for one in dataset.manifest.sources) == len(rows)


def test_dataset(tmp_path: Path) -> None:
    """Breaks for training: images, conditions and splits must belong together."""
    images = write(tmp_path / "a")
    dataset = SliceDataset(tmp_path / "a", split="train")
    assert (len(dataset), dataset.size) == (3, 8)
    image, condition = dataset[1]
    assert (image.shape, image.dtype) == ((1, 8, 8), np.float32)
    np.testing.assert_allclose(image[0], images[2], atol=1.7e-5)
    assert condition == Condition("MR", "brain", "axial", "set")
    batch = dataset.batch([2, 0, 2])
    assert (batch.shape, batch.dtype) == ((3, 1, 8, 8), np.float32)
    np.testing.assert_array_equal(batch[1], dataset[0][0])
    np.testing.assert_array_equal(batch[0], dataset[2][0])
    assert len(SliceDataset(tmp_path / "a", split="test")) == 2
    assert len(list(SliceDataset(tmp_path / "a"))) == 5
    with pytest.raises(MedvarError, match="split"):
        SliceDataset(tmp_path / "a", split="validation")


def test_dataset_travels_to_workers_without_its_images(tmp_path: Path) -> None:
    """Breaks for data loaders with workers: a pickled memory map would copy every image."""
    write(tmp_path / "a", count=200, size=32)
    dataset = SliceDataset(tmp_path / "a", split="train")
    packed = pickle.dumps(dataset)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).batch([3]), dataset.batch([3]))


def test_exception_leaves_nothing(tmp_path: Path) -> None:
    """Breaks for interrupted runs: half a data set must not pass for a whole one, nor fill the disk."""
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "a", 8, shard_slices=1) as writer:  # noqa: PT012
        writer.add(np.zeros((1, 8, 8), np.uint16), [SliceFacts(**ABOUT)])
        raise KeyboardInterrupt
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("at", ["_flush_to_disk", "_replace_folder", "_sha256"])
def test_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Breaks for full disks, whenever the space runs out."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, at, full)
    with pytest.raises(MedvarError, match="No space left"):
        write(tmp_path / "a")
    assert leftovers(tmp_path) == []


def test_failed_overwrite_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for whoever prepares again: the old data must survive a failure in the very last step."""
    images = write(tmp_path / "a")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if "-partial-" in self.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(MedvarError, match="Input/output error"):
        write(tmp_path / "a", count=2, overwrite=True)
    assert leftovers(tmp_path) == ["a"]
    np.testing.assert_allclose(SliceDataset(tmp_path / "a").batch(range(5))[:, 0], images, atol=1.7e-5)


def test_other_peoples_folders_are_not_overwritten(tmp_path: Path) -> None:
    """Breaks for a mistyped output folder: nothing that is not ours is ever deleted."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years")
    for overwrite in (False, True):
        with pytest.raises(MedvarError, match="home"):
            write(tmp_path / "home", overwrite=overwrite)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years"
    write(tmp_path / "a")
    with pytest.raises(MedvarError, match="not empty"):
        write(tmp_path / "a")
    write(tmp_path / "a", count=2, overwrite=True)
    assert Manifest.read(tmp_path / "a").slices == 2
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert leftovers(tmp_path) == ["a", "empty", "home"]


def test_wrong_image_is_refused(tmp_path: Path) -> None:
    """Breaks for training: one NaN in a batch is a lost run."""
    with ShardWriter(tmp_path / "a", 8) as writer:
        with pytest.raises(MedvarError, match="8×8"):
            writer.add(np.zeros((1, 8, 9), np.uint16), [SliceFacts(**ABOUT)])
        with pytest.raises(MedvarError, match="finite"):
            encode(np.full((8, 8), np.nan, np.float32))


def test_damage_is_told(tmp_path: Path) -> None:
    """Breaks for copied and half-copied data sets: the file that is wrong must be named."""

    def damaged(case: int, name: str, content: bytes | None) -> Path:
        folder = tmp_path / str(case)
        write(folder)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        return folder

    write(tmp_path / "good")
    shard = (tmp_path / "good" / "images-00000.npy").read_bytes()
    table = (tmp_path / "good" / TABLE).read_bytes()
    manifest = (tmp_path / "good" / MANIFEST).read_text()
    cases: list[tuple[str, bytes | None]] = [
        ("images-00000.npy", shard[:-9]),
        ("images-00000.npy", shard[:40]),
        ("images-00000.npy", b""),
        ("images-00000.npy", None),
        ("images-00001.npy", (tmp_path / "good" / "images-00002.npy").read_bytes()),
        (TABLE, table[: len(table) // 2]),
        (TABLE, table.replace(b"1.25", b"1.x5")),
        (TABLE, table.replace(b",1,0,1,test", b",1,0,7,test")),
        (TABLE, b"a,b\n1,2\n"),
        (TABLE, None),
        (MANIFEST, manifest[:50].encode()),
        (MANIFEST, b"[]"),
        (MANIFEST, manifest.replace('"schema_version": 1', '"schema_version": 99').encode()),
        (MANIFEST, None),
    ]
    for case, (name, content) in enumerate(cases):
        folder = damaged(case, name, content)
        with pytest.raises(MedvarError, match=r"images-0000|slices|manifest"):
            SliceDataset(folder)


def test_verify_finds_a_flipped_bit(tmp_path: Path) -> None:
    """Breaks for silent corruption, which sizes do not show."""
    write(tmp_path / "a")
    verify(tmp_path / "a")
    path = tmp_path / "a" / "images-00001.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    SliceDataset(tmp_path / "a")
    with pytest.raises(MedvarError, match="images-00001"):
        verify(tmp_path / "a")


def test_manifest_is_plain_json(tmp_path: Path) -> None:
    """Breaks for other tools, which read the manifest without us."""
    write(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["schema_version"] == 1
    assert manifest["size"] == 8
    assert manifest["split"] == {"p0": "train", "p1": "test"}
    assert [shard["slices"] for shard in manifest["shards"]] == [2, 2, 1]
    assert manifest["sources"][0]["licence"] == "CC BY 4.0"
    assert Manifest.read(tmp_path / "a").counts == manifest["counts"]
