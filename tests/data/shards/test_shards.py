"""Shards: what is written is read back, a failed write leaves nothing, damage is told."""

from __future__ import annotations

import errno
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import MANIFEST, TABLE, Manifest, ShardFolder, ShardWriter, verify
from medvar_engine.data.shards.image_file import ImageFile
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.shards.slice_table import BATCH_ROWS
from medvar_engine.data.split import SplitRule
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import decode, encode

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
        "position": st.none() | st.floats(0, 1),
    }
)


@settings(max_examples=25, deadline=None)
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


def test_table_is_plain_arrow(tmp_path: Path) -> None:
    """Breaks for other tools, which read the table without us; and for memory, if it were compressed or read whole."""
    write(tmp_path / "a")
    with pa.memory_map(str(tmp_path / "a" / TABLE)) as file:
        before = pa.total_allocated_bytes()
        table = pa.ipc.open_file(file).read_all()
        assert pa.total_allocated_bytes() == before
    assert table["patient"].to_pylist() == ["p0", "p1", "p0", "p1", "p0"]
    assert table["contrast"].to_pylist() == [None] * 5
    assert table["shard"].to_pylist() == [0, 0, 1, 1, 2]
    assert table.schema.field("region").type == pa.dictionary(pa.int32(), pa.utf8())
    assert table.schema.field("fingerprint").type == pa.binary(32)


def test_many_rows(tmp_path: Path) -> None:
    """Breaks for large sets: rows are gathered into batches on the way, and none may be lost or doubled."""
    count = BATCH_ROWS + 1500
    with ShardWriter(tmp_path / "a", 1, shard_slices=5000) as writer:
        for start in range(0, count, 700):
            numbers = range(start, min(start + 700, count))
            codes = np.array([number % 65536 for number in numbers], np.uint16).reshape(-1, 1, 1)
            facts = [SliceFacts(**ABOUT | {"patient": f"p{n % 9}", "position_mm": float(n)}) for n in numbers]
            writer.add(codes, facts)
        assert writer.strata == {f"p{n}": {("MR", "brain")} for n in range(9)}
        writer.finish(dict.fromkeys(writer.strata, "train"))
    verify(tmp_path / "a")
    folder = ShardFolder.open(tmp_path / "a")
    assert folder.table["position_mm"].to_pylist() == list(range(count))
    images = np.concatenate([folder.shard(number) for number in range(2)])[:, 0, 0]
    np.testing.assert_array_equal(images, np.arange(count) % 65536)
    assert [row.position_mm for row in SliceDataset(tmp_path / "a").rows] == list(range(count))
    tracemalloc.start()
    dataset = SliceDataset(tmp_path / "a")
    assert tracemalloc.get_traced_memory()[0] < 200_000 + 40 * len(dataset)  # objects would take ten times as much
    tracemalloc.stop()


def test_exception_leaves_nothing(tmp_path: Path) -> None:
    """Breaks for interrupted runs: half a data set must not pass for a whole one, nor fill the disk."""
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "a", 8, shard_slices=1) as writer:  # noqa: PT012
        writer.add(np.zeros((1, 8, 8), np.uint16), [SliceFacts(**ABOUT)])
        raise KeyboardInterrupt
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("at", ["os.fsync", "os.replace", "pathlib.Path.rename", "hashlib.file_digest"])
def test_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Breaks for full disks, whenever the space runs out."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(at, full)
    with pytest.raises(MedvarError, match="No space left"):
        write(tmp_path / "a")
    assert leftovers(tmp_path) == []


def test_nothing_follows_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for whoever goes on after an error: images and rows would no longer belong together, silently."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with ShardWriter(tmp_path / "a", 8, shard_slices=1) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(ImageFile, "write", full)
            with pytest.raises(MedvarError, match="No space left"):
                writer.add(np.zeros((1, 8, 8), np.uint16), [SliceFacts(**ABOUT)])
        with pytest.raises(MedvarError, match="failed before"):
            writer.add(np.zeros((1, 8, 8), np.uint16), [SliceFacts(**ABOUT)])
        with pytest.raises(MedvarError, match="failed before"):
            writer.finish({"p1": "train"})
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


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("wrong", [{"series": "\ud800"}, {"fingerprint": bytes(31)}, {"unit": None}, {"low": "x"}])
def test_wrong_facts_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Breaks for file names that are no text: one such scan must not cost all others, nor leave its images behind."""
    with ShardWriter(tmp_path / "a", 8) as writer:
        with pytest.raises(MedvarError, match=next(iter(wrong))):
            writer.add(np.ones((1, 8, 8), np.uint16), [SliceFacts(**ABOUT | wrong)])
        writer.add(np.zeros((1, 8, 8), np.uint16), [SliceFacts(**ABOUT)])
        with pytest.raises(MedvarError, match="p1"):
            writer.finish({})
        writer.finish({"p1": "train"})
    assert SliceDataset(tmp_path / "a").codes(0).max() == 0


def test_damage_is_reported(tmp_path: Path) -> None:
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
        (TABLE, table[:-1]),
        (TABLE, b""),
        (TABLE, b"index,shard\n0,0\n"),
        (TABLE, None),
        (MANIFEST, manifest[:50].encode()),
        (MANIFEST, b"[]"),
        (MANIFEST, manifest.replace('"schema_version": 2', '"schema_version": 99').encode()),
        (MANIFEST, manifest.replace('"slices.arrow"', '"../slices.arrow"').encode()),
        (MANIFEST, manifest.replace('"images-00001.npy"', '"images-00000.npy"').encode()),
        (MANIFEST, manifest.replace('"p0": "train"', '"p0": "both"').encode()),
        (MANIFEST, manifest.replace('"p0": "train",', "").encode()),
        (MANIFEST, None),
    ]
    for case, (name, content) in enumerate(cases):
        folder = damaged(case, name, content)
        for door in (SliceDataset, verify):
            with pytest.raises(MedvarError, match=r"images-0000|slices|manifest"):
                door(folder)


def test_damaged_tables_do_no_harm(tmp_path: Path) -> None:
    """Breaks for tables from strangers: a wrong number in one must be an error, not a crash or a foreign byte."""
    write(tmp_path / "a", count=40)
    table = (tmp_path / "a" / TABLE).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(80):
        content = bytearray(table)
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        (tmp_path / "a" / TABLE).write_bytes(content)
        try:
            assert len(list(SliceDataset(tmp_path / "a").rows)) == 40
        except MedvarError:
            refused += 1
        with pytest.raises(MedvarError, match=TABLE):
            verify(tmp_path / "a")
    assert refused > 10


def test_rows_outside_the_shards_are_refused(tmp_path: Path) -> None:
    """Breaks for tables made by other tools: a row that points nowhere is an error before training begins."""
    write(tmp_path / "a")
    path = tmp_path / "a" / TABLE
    table = ShardFolder.open(tmp_path / "a").table
    for name, value in (("row", 2), ("row", -1), ("shard", 3), ("shard", -1)):
        place = table.schema.get_field_index(name)
        values = [value if i == 3 else old for i, old in enumerate(table[name].to_pylist())]
        changed = table.set_column(place, table.schema.field(name), pa.array(values, pa.int32()))
        with pa.OSFile(str(tmp_path / "new"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(changed)
        (tmp_path / "new").replace(path)
        with pytest.raises(MedvarError, match="slice 3 points outside"):
            SliceDataset(tmp_path / "a")


def test_folders_of_older_versions(tmp_path: Path) -> None:
    """Breaks for whoever updates: what to do with slices prepared before must be said."""
    (tmp_path / MANIFEST).write_text('{"size": 8, "schema_version": 1, "table_sha256": "ab"}')
    with pytest.raises(MedvarError, match=r"schema_version is 1; .* reads 2. Prepare the data again"):
        SliceDataset(tmp_path)


def test_an_interrupted_overwrite_is_explained(tmp_path: Path) -> None:
    """Breaks for whoever loses power in the very moment: the old slices are there, and are to be found."""
    write(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / ".a-old-0123abcd")
    with pytest.raises(MedvarError, match=r"\.a-old-0123abcd. Rename that folder back"):
        SliceDataset(tmp_path / "a")


def test_verify_finds_a_flipped_bit(tmp_path: Path) -> None:
    """Breaks for silent corruption, which sizes do not show."""
    write(tmp_path / "a")
    verify(tmp_path / "a")
    path = tmp_path / "a" / "images-00001.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    SliceDataset(tmp_path / "a")
    (tmp_path / "a" / "images-00002.npy").unlink()
    with pytest.raises(MedvarError, match=r"images-00001\.npy was changed .*; images-00002\.npy cannot be read"):
        verify(tmp_path / "a")


def test_verify_compares_the_manifest_with_the_slices(tmp_path: Path) -> None:
    """Breaks for manifests edited by hand: a model card would tell of patients and slices that are not there."""
    write(tmp_path / "a")
    text = (tmp_path / "a" / MANIFEST).read_text()
    for old, new, says in (
        ('"p0": "train"', '"p0": "train", "p9": "test"', "p9 is in the split"),
        ('"p0": "train"', '"p0": "test"', "counts"),
    ):
        (tmp_path / "a" / MANIFEST).write_text(text.replace(old, new))
        with pytest.raises(MedvarError, match=says):
            verify(tmp_path / "a")


def test_manifest_is_plain_json(tmp_path: Path) -> None:
    """Breaks for other tools, which read the manifest without us."""
    write(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["schema_version"] == 2
    assert manifest["size"] == 8
    assert manifest["split"] == {"p0": "train", "p1": "test"}
    assert [shard["slices"] for shard in manifest["shards"]] == [2, 2, 1]
    assert manifest["sources"][0]["licence"] == "CC BY 4.0"
    assert Manifest.read(tmp_path / "a").counts == manifest["counts"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("recipe", None), ("recipe", "a text"), ("counts", [{}]), ("counts", [{"slices": "many"}]), ("counts", [3])),
        *(("sources", [{}]), ("sources", {"a": 1}), ("refused", [[1]]), ("refused", [{"path": None}])),
        *(("split", ["p0"]), ("split", {"p0": 3}), ("given_split", {"p0": 1}), ("given_split", None)),
        *(("remarks", [None]), ("remarks", "one"), ("marks", {"p0": None}), ("one_patient", [3]), ("patient_ids", 7)),
        *(("shards", None), ("shards", "abc"), ("shards", [None]), ("table", []), ("structures", [{"name": 3}])),
        *(("size", None), ("size", 1.5), ("size", -5), ("size", [128])),
    ],
)
def test_a_manifest_with_values_of_other_kinds_is_refused(tmp_path: Path, field: str, value: object) -> None:
    """Each would be a traceback in another place, some only after hours of reading."""
    write(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / MANIFEST).read_text())
    (tmp_path / "a" / MANIFEST).write_text(json.dumps(manifest | {field: value}))
    with pytest.raises(MedvarError, match=r"manifest\.json is damaged"):
        Manifest.read(tmp_path / "a")


@pytest.mark.parametrize(
    "odd",
    [
        *({"holdout": None}, {"holdout": [3]}, {"seed": "x"}, {"strata": 4}, {"seed": None}),
        *({"test_fraction": 2.0}, {"seed": -1}, {"strata": ["age"]}),
    ],
)
def test_a_damaged_rule_of_the_split_is_refused(odd: dict[str, object]) -> None:
    """Merging or splitting again would end in a traceback."""
    with pytest.raises(MedvarError, match="split in the manifest is damaged"):
        SplitRule.of({"test_fraction": 0.2} | odd)
    assert SplitRule.of({"test_fraction": 0.2, "holdout": ["p"], "size": 3}) == SplitRule(0.2, holdout=("p",))
