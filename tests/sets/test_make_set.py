"""Making a set: the same whatever the way to it, and gone on with after anything."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.replay import replay
from medvar_engine.request import Sampling
from medvar_engine.sets import make_set as running
from medvar_engine.sets.image_set import ImageSet
from medvar_engine.sets.mixture import Mixture
from medvar_engine.sets.set_manifest import SET, SetManifest
from medvar_engine.sets.set_plan import SetFormat
from medvar_engine.sets.set_unit import SetUnit, make_unit
from medvar_engine.value_range import encode

MakeSet = Callable[..., SetManifest]


def content(folder: Path) -> dict[str, bytes]:
    """Pixels and tables of a set of shards; the notes tell of the time when it was begun."""
    return {path.name: path.read_bytes() for path in sorted((folder / "units").iterdir()) if path.suffix != ".json"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle, mixture: Mixture) -> Path:
    """A set of ten images, made in one go."""
    folder = tmp_path_factory.mktemp("sets") / "whole"
    running.make_set(folder, mixture, 10, bundle, computing=running.Resources("cpu"), unit_images=4)
    return folder


def test_every_image_is_what_its_request_gives_alone(whole: Path, mixture: Mixture, tiny_onnx: OnnxBackend) -> None:
    """An image of a set could not be made again from what the set says of it."""
    images = ImageSet.open(whole)
    assert len(images) == 10
    generator = Generator(tiny_onnx)
    for made, request in zip(images, mixture.requests(range(10)), strict=True):
        assert made.trace.request == request
        again = replay(generator, made.trace)
        np.testing.assert_array_equal(encode(made.image), encode(generator.image(again)[0]))
    assert sum(made.trace.request.condition.modality == "MR" for made in images) == 2


@pytest.mark.parametrize("how", [{"batch": 1}, {"batch": 3}, {"batch": 16}, {"workers": 2, "batch": 3}])
def test_workers_and_batches_do_not_change_the_result(
    make: MakeSet, whole: Path, tmp_path: Path, how: dict[str, int]
) -> None:
    """Memory or the number of cores would decide what is drawn."""
    make(tmp_path / "set", **how)
    assert content(tmp_path / "set") == content(whole)


def test_on_a_cluster(make: MakeSet, whole: Path, tmp_path: Path) -> None:
    """The same on many machines; there several threads may share a process."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as local:
        make(tmp_path / "set", cluster=local.scheduler_address)
    assert content(tmp_path / "set") == content(whole)


def test_units_come_in_any_order(whole: Path, bundle: Bundle, tmp_path: Path) -> None:
    """A unit that was lost and made last would be another one."""
    plan = SetManifest.read(whole).plan
    (tmp_path / "units").mkdir()
    for unit in reversed(range(plan.units)):
        make_unit(SetUnit(plan, unit, tmp_path, bundle.path, "cpu"))
    assert content(tmp_path) == content(whole)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_killed_in_the_middle(tmp_path: Path, bundle: Bundle, mixture: Mixture, make: MakeSet) -> None:
    """A night's work would be lost, or images be there twice or not at all."""
    plan = tmp_path / "mix.json"
    plan.write_text(json.dumps(mixture.to_dict()))
    script = (
        "import json, sys\nfrom pathlib import Path\nfrom medvar_engine.bundle.read import read_bundle\n"
        "from medvar_engine.sets.mixture import Mixture\nfrom medvar_engine.sets.make_set import Resources, make_set\n"
        "folder, bundle, plan = map(Path, sys.argv[1:])\nmixture = Mixture.from_dict(json.loads(plan.read_text()))\n"
        "make_set(folder, mixture, 400, read_bundle(bundle), computing=Resources('cpu', 1), unit_images=4)\n"
    )
    folder = tmp_path / "set"
    process = subprocess.Popen([sys.executable, "-c", script, str(folder), str(bundle.path), str(plan)])
    while not (folder / "units" / "00002.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    manifest = SetManifest.read(folder)
    assert not manifest.complete
    with pytest.raises(MedvarError, match="not complete"):
        ImageSet.open(folder)
    (folder / "units" / ".00009.npy.4711.tmp").write_bytes(b"half")
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "units").glob("0000[012].*")}
    made: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):  # so that the rest need not be made here
        make(folder, count=400, progress=lambda *progress: made.append(progress) or _stop(len(made) == 40))
    assert made[0] == (4, 0)  # found whole
    assert made[-1][1] > 0
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "units").glob("0000[012].*")} == before
    assert not list(folder.rglob("*.tmp"))
    at_once = tmp_path / "at once"
    make(at_once, count=160)
    assert {name: content(folder)[name] for name in content(at_once)} == content(at_once)


def _stop(now: bool) -> None:
    if now:
        raise KeyboardInterrupt


def test_a_larger_set_begins_as_the_smaller_one(make: MakeSet, whole: Path, tmp_path: Path) -> None:
    """To want more images would mean to make all of them again."""
    folder = tmp_path / "set"
    make(folder, count=6)
    assert len(ImageSet.open(folder)) == 6
    assert ImageSet.open(folder)[-1].trace.request.seed == ImageSet.open(whole)[5].trace.request.seed
    first = (folder / "units" / "00000.npy").stat().st_mtime_ns
    make(folder, count=10, unit_images=64)  # units stay as they were begun
    assert content(folder) == content(whole)
    assert (folder / "units" / "00000.npy").stat().st_mtime_ns == first
    assert len(ImageSet.open(folder)) == len(list(ImageSet.open(folder))) == 10
    ImageSet.open(folder).verify()


def test_a_complete_dataset_is_not_made_again(make: MakeSet, tmp_path: Path) -> None:
    """To look whether a set is whole would take a night; and meanwhile nobody could read it."""
    make(tmp_path)
    made: list[tuple[int, int]] = []
    make(tmp_path, progress=lambda *progress: made.append(progress) or ImageSet.open(tmp_path))
    assert made == [(4, 0), (8, 0), (10, 0)]


@pytest.mark.parametrize("name", ["00001.npy", "00001.arrow", "00001.json"])
def test_damaged_units_are_found_and_made_again(make: MakeSet, whole: Path, tmp_path: Path, name: str) -> None:
    """A bad disk would give images that nobody drew."""
    make(tmp_path)
    path = tmp_path / "units" / name
    path.write_bytes(path.read_bytes()[:-9] + b"#" * 9)
    with pytest.raises(MedvarError, match="unit 1 is damaged"):
        ImageSet.open(tmp_path).verify()
    path.write_bytes(path.read_bytes()[:50])
    if name != "00001.json":
        with pytest.raises(MedvarError, match=r"Shard 1 .* is missing or damaged"):
            ImageSet.open(tmp_path)[4]
    make(tmp_path)
    assert content(tmp_path) == content(whole)
    ImageSet.open(tmp_path).verify()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": 9}, "enlarged, but not reduced"),
        ({"kind": SetFormat("imagefolder", "png")}, "layout, format differ"),
        ({"mixture": Mixture.of(Condition(), Sampling())}, "mix differ"),
    ],
)
def test_another_set_in_the_same_folder(make: MakeSet, whole: Path, change: dict[str, object], says: str) -> None:
    """Two sets would be mixed into one, and its manifest tell of one of them."""
    before = content(whole)
    with pytest.raises(MedvarError, match=says):
        make(whole, **change)
    assert content(whole) == before
    assert SetManifest.read(whole).complete


def test_another_model(make: MakeSet, whole: Path, bundle: Bundle) -> None:
    """A set would be drawn by two models."""
    other = replace(bundle, sha256={**bundle.sha256, "other.onnx": "0" * 64}, path=whole)
    with pytest.raises(MedvarError, match="lacks"):  # its files are looked at first
        make(whole, bundle=other)
    with pytest.raises(MedvarError, match="model differ"):
        running._planned(whole, replace(SetManifest.read(whole).plan, bundle_id=other.bundle_id), other)


def test_other_folders_are_refused(make: MakeSet, tmp_path: Path) -> None:
    """A folder of patients would become a set."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scan.nii").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "mine", tmp_path / "file"):
        with pytest.raises(MedvarError, match="something other than a synthetic dataset"):
            make(folder)
    with pytest.raises(MedvarError, match="Cannot"):
        make(tmp_path / "file" / "set")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["scan.nii"]


def test_two_at_once(make: MakeSet, tmp_path: Path) -> None:
    """Two processes would write over each other."""

    def again(there: int, made: int) -> None:
        with pytest.raises(MedvarError, match="by another process"):
            make(tmp_path / "set")

    make(tmp_path / "set", progress=again)


def test_a_full_disk(make: MakeSet, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback in the night, half a shard, and everything from the start."""
    left, flush = [6], os.fsync

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    monkeypatch.setattr("medvar_engine.storage.os.fsync", full)
    with pytest.raises(MedvarError, match=r"Images 4 to 7 .*No space left.*run the same command again"):
        make(tmp_path / "set")
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.undo()
    made: list[tuple[int, int]] = []
    make(tmp_path / "set", progress=lambda *progress: made.append(progress))
    assert made[0] == (4, 0)
    assert content(tmp_path / "set") == content(whole)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"medvar_set": 9}', '{"medvar_set": 1, "plan": {}, "model": {}, "units": []}']
)
def test_an_invalid_manifest_is_refused(make: MakeSet, tmp_path: Path, text: str) -> None:
    """Somebody's edit of the manifest would be a traceback."""
    (tmp_path / SET).write_text(text)
    for do in (make, ImageSet.open):
        with pytest.raises(MedvarError, match=SET):
            do(tmp_path)


def test_the_manifest_says_what_it_is(whole: Path, bundle: Bundle) -> None:
    """A set found years later would be taken for patients."""
    said = json.loads((whole / SET).read_text())
    assert said["synthetic"] is True
    assert said["counts"] == {"CT chest axial": 8, "MR brain": 2}
    assert said["model"]["sha256"] == bundle.bundle_id
    card = (whole / "README.md").read_text()
    assert "**SYNTHETIC.**" in card
    assert "| MR brain | 2 |" in card
    table = ImageSet.open(whole).table()
    assert table.schema.metadata[b"synthetic"] == b"true"
    assert table["number"].to_pylist() == list(range(10))


def test_training_refuses_synthetic_datasets(whole: Path) -> None:
    """A model would be trained on images of a model without anybody having asked for it."""
    from medvar_engine.data.shards import ShardFolder

    with pytest.raises(MedvarError, match="synthetic"):
        ShardFolder.open(whole)
