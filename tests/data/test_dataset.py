"""`SliceDataset`: the right image with the right condition, in any process, from any number of files."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from medvar_engine.conditions import FACTORS, Condition
from medvar_engine.data import dataset as module
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import Manifest, ShardWriter, append
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.shards.slice_table import read_table
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import decode

Prepared = Callable[..., Path]
PATIENTS = ["ct1", "mr1", "ct2", "mr2", "ct3"]


@pytest.fixture
def folder(tmp_path: Path, prepared: Prepared) -> Path:
    return prepared(tmp_path / "a", PATIENTS, holdout=("ct2", "mr2"))


def stored(folder: Path) -> np.ndarray:
    """All images as they lie in the files."""
    return np.concatenate([np.load(path) for path in sorted(folder.glob("images-*.npy"))])


def test_images_and_conditions_belong_together(folder: Path) -> None:
    """Breaks for training: a brain called a chest is learned as one."""
    everything = decode(stored(folder))
    dataset = SliceDataset(folder, split="train")
    assert (len(dataset), dataset.size) == (9, 8)
    taken = [i for i, patient in enumerate(np.repeat(PATIENTS, 3)) if patient in ("ct1", "mr1", "ct3")]
    for index, place in enumerate(taken):
        image, condition = dataset[index]
        assert (image.shape, image.dtype) == ((1, 8, 8), np.float32)
        np.testing.assert_array_equal(image[0], everything[place])
        modality = dataset.rows[index].patient[:2].upper()
        assert condition == Condition(modality, {"CT": "chest", "MR": "brain"}[modality], "axial", "some")
    np.testing.assert_array_equal(dataset.batch([8, 0, -1, 4])[:, 0], everything[np.array(taken)[[8, 0, 8, 4]]])
    assert len(SliceDataset(folder, split="test")) == 6
    assert len(list(SliceDataset(folder))) == 15


def test_rows_and_conditions_are_sequences(folder: Path) -> None:
    """Breaks for scripts that look at slices: in turn, by number and by range they must be the same."""
    dataset = SliceDataset(folder, split="test")
    rows = list(dataset.rows)
    assert [row.patient for row in rows] == ["ct2"] * 3 + ["mr2"] * 3
    assert [dataset.rows[i] for i in range(-6, 0)] == rows == list(dataset.rows[:])
    assert list(dataset.rows[4:1:-2]) == rows[4:1:-2]
    assert list(dataset.conditions[4:1:-2]) == list(dataset.conditions)[4:1:-2]
    assert {row.split for row in rows} == {"test"}
    assert [row.spacing_mm for row in rows[:3]] == [None, 1.25, 1.25]
    assert set(dataset.conditions.distinct) == set(dataset.conditions)
    assert dataset.columns("patient", "low").to_pylist()[3] == {"patient": "mr2", "low": -1000.0}
    for sequence in (dataset.rows, dataset.conditions, dataset):
        with pytest.raises(IndexError):
            sequence[6]


def test_conditions_without_a_label(folder: Path, tmp_path: Path) -> None:
    """Breaks for scans of an unknown region: None must not become some other region's name."""
    row = SliceDataset(folder).rows[0]
    known = {one.name: getattr(row, one.name) for one in fields(SliceFacts)}
    asked = [Condition("CT", region, plane) for region in (None, "brain", "chest") for plane in (None, "x", "y")]
    with ShardWriter(tmp_path / "b", 8) as writer:
        for condition in asked:
            facts = SliceFacts(**known | {name: getattr(condition, name) for name in FACTORS})
            writer.add(np.zeros((1, 8, 8), np.uint16), [facts])
        writer.finish({"ct1": "train"})
    assert list(SliceDataset(tmp_path / "b").conditions) == asked


def test_a_position_is_that_of_its_step(folder: Path, tmp_path: Path) -> None:
    """Every slice would be a kind of its own, or the unknown position that of the feet."""
    row = SliceDataset(folder).rows[0]
    known = {one.name: getattr(row, one.name) for one in fields(SliceFacts)} | {"contrast": "T1"}
    places = [0.0, 0.124, 0.125, None, 0.9, 1.0, None]
    with ShardWriter(tmp_path / "b", 8) as writer:
        writer.add(np.zeros((7, 8, 8), np.uint16), [SliceFacts(**known | {"position": place}) for place in places])
        writer.finish({"ct1": "train"})
    dataset = SliceDataset(tmp_path / "b")
    assert [row.position for row in dataset.rows] == places
    steps = [0.0625, 0.0625, 0.1875, None, 0.9375, 0.9375, None]
    assert [condition.position for condition in dataset.conditions] == steps
    assert {condition.contrast for condition in dataset.conditions} == {"T1"}
    assert len(dataset.conditions.distinct) == 4


def test_older_slices_without_positions_are_read(folder: Path) -> None:
    """A user would have to prepare all data again."""
    rows = list(SliceDataset(folder).rows)
    table = folder / Manifest.read(folder).table["file"]
    old = read_table(table).drop_columns("position")
    with pa.BufferOutputStream() as sink:
        with pa.ipc.new_file(sink, old.schema) as writer:
            writer.write_table(old)
        table.write_bytes(sink.getvalue())
    dataset = SliceDataset(folder)
    assert list(dataset.rows) == rows
    assert {condition.position for condition in dataset.conditions} == {None}


def test_many_shards_do_not_use_up_open_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for large sets with many workers, which would hit the limit of open files after hours."""
    monkeypatch.setattr(module, "OPEN_SHARDS", 2)
    dataset = SliceDataset(folder)
    everything = decode(stored(folder))
    order = np.random.default_rng(0).permutation(15)
    np.testing.assert_array_equal(dataset.batch(order)[:, 0], everything[order])
    if (maps := Path("/proc/self/maps")).exists():
        assert maps.read_text().count(f"{folder}/images-") == 2


def test_workers_open_the_files_themselves(folder: Path) -> None:
    """Breaks for data loaders: a pickled memory map would copy every image to every worker."""
    from torch.utils import data as torch_data

    dataset = SliceDataset(folder, split="train")
    packed = pickle.dumps(dataset)
    assert len(packed) < 600
    np.testing.assert_array_equal(pickle.loads(packed).batch([3, 5]), dataset.batch([3, 5]))
    loader = torch_data.DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=list)
    found = [item for batch in loader for item in batch]
    assert [condition for _, condition in found] == list(dataset.conditions)
    np.testing.assert_array_equal(np.stack([image for image, _ in found]), dataset.batch(range(9)))


def test_a_changed_folder_is_noticed_by_workers(folder: Path, tmp_path: Path, prepared: Prepared) -> None:
    """Breaks for slices appended during training: a worker would number them otherwise than the others do."""
    dataset = SliceDataset(folder)
    packed = pickle.dumps(dataset)
    before = dataset.batch(range(15))
    append(folder, prepared(tmp_path / "b", ["ct9"], seed=9))
    np.testing.assert_array_equal(dataset.batch(range(15)), before)
    assert len(list(dataset.rows)) == 15
    with pytest.raises(MedvarError, match="was changed while it was being read"):
        pickle.loads(packed)


def test_an_empty_split_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    """Breaks for a mistyped split, and for sets without anybody held out."""
    folder = prepared(tmp_path / "a", ["ct1"])
    with pytest.raises(MedvarError, match="split must be 'train'"):
        SliceDataset(folder, split="validation")
    with pytest.raises(MedvarError, match="no slices in split 'test'"):
        SliceDataset(folder, split="test")
