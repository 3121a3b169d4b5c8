"""Folders that grow, are merged or split anew: nothing is lost, nobody changes sides, and no kill leaves a mix."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import MANIFEST, Manifest, ShardWriter, append, merge, resplit, verify
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.split import SplitRule, split_patients
from medvar_engine.errors import MedvarError

Prepared = Callable[..., Path]
ALL = [f"{modality}{number}" for modality in ("ct", "mr") for number in range(4)]


def content(folder: Path) -> list[tuple[dict[str, Any], bytes]]:
    """Facts and pixels of every slice, wherever it lies."""
    dataset = SliceDataset(folder)
    facts = [{one.name: getattr(row, one.name) for one in fields(SliceFacts)} for row in dataset.rows]
    return [(fact, dataset.codes(i).tobytes()) for i, fact in enumerate(facts)]


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


@settings(max_examples=8)
@given(st.permutations(ALL), st.integers(1, 7), st.integers(1, 5))
def test_append_and_merge_equal_writing_at_once(prepared: Prepared, patients: list[str], cut: int, slices: int) -> None:
    """Breaks for sets made in parts: a slice, a fact or a side of somebody could get lost on the way."""
    held_out = [one for one in ("ct1", "mr3") if one in patients[:cut]]
    with tempfile.TemporaryDirectory() as name:
        a, b, merged, once = (Path(name) / part for part in ("a", "b", "merged", "once"))
        prepared(a, patients[:cut], slices=slices, holdout=held_out)
        prepared(b, patients[cut:], slices=slices, seed=1, test_fraction=0)
        rule = {"test_fraction": 0.3, "holdout": held_out} if held_out else {"test_fraction": 0}
        resplit(a, SplitRule(**rule))
        expected = content(a) + content(b)
        with ShardWriter(once, 8, shard_slices=4) as writer:
            for facts, image in expected:
                writer.add(np.frombuffer(image, np.uint16).reshape(1, 8, 8), [SliceFacts(**facts)])
            writer.finish(split_patients(writer.strata, **rule)[0])
        at_once = verify(once)
        merge([a, b], merged)
        append(a, b)
        for folder in (merged, a):
            manifest = verify(folder)
            assert content(folder) == expected == content(once)
            for name in ("counts", "sources", "split", "slices", "size"):
                assert getattr(manifest, name) == getattr(at_once, name), name


def test_append(tmp_path: Path, prepared: Prepared) -> None:
    """Breaks for data that grows: old patients stay where they are, new ones are split by the same rule."""
    folder = prepared(tmp_path / "a", [f"ct{n}" for n in range(10)])
    more = prepared(tmp_path / "b", [f"ct{n}" for n in range(8, 20)] + ["mr1"], seed=1)
    old, new = content(folder), content(more)
    before = Manifest.read(folder)
    manifest = append(folder, more)
    assert {patient: manifest.split[patient] for patient in before.split} == before.split
    assert list(manifest.split.values()).count("test") == 6  # 0.3 of the 20 with CT
    assert manifest.remarks == ["MR brain: not tested, it has one patient only"]
    assert [image for _, image in content(folder)] == [image for _, image in old + new]
    assert entries(folder) == {MANIFEST, *manifest.files}
    assert content(more) == new
    shutil.rmtree(more)
    verify(folder)


def test_patients_held_out_by_name_are_not_trained_on(tmp_path: Path, prepared: Prepared) -> None:
    """Breaks for published test sets: appended to a set that draws its own test, they would be trained on."""
    folder = prepared(tmp_path / "a", [f"ct{n}" for n in range(10)])
    manifest = append(folder, prepared(tmp_path / "b", ["mr1", "mr2", "mr3"], seed=1, holdout=("mr1", "mr3")))
    assert [manifest.split[patient] for patient in ("mr1", "mr2", "mr3")] == ["test", "train", "test"]


def test_merge(tmp_path: Path, prepared: Prepared) -> None:
    """Breaks for several sources: one patient in two of them must be on one side, that of the test."""
    a = prepared(tmp_path / "a", ["ct1", "ct2", "mr1"], holdout=("ct1",))
    b = prepared(tmp_path / "b", ["ct1", "ct2", "mr2"], seed=1, holdout=("ct2",))
    manifest = merge([a, b], tmp_path / "out")
    assert manifest.split == {"ct1": "test", "ct2": "test", "mr1": "train", "mr2": "train"}
    assert "held out, because one of the merged folders holds them out: ct1, ct2" in manifest.remarks
    assert any("different rules" in remark for remark in manifest.remarks)
    assert len(SliceDataset(tmp_path / "out", "train")) == 6
    for folder in (a, b):
        shutil.rmtree(folder)
    verify(tmp_path / "out")


def test_mismatched_folders_are_refused(tmp_path: Path, prepared: Prepared) -> None:
    """Breaks for mixtures: images of two sizes, made in two ways or there twice spoil what is learned."""
    a = prepared(tmp_path / "a", ["ct1", "ct2"])
    wide = prepared(tmp_path / "wide", ["ct3"], size=16, seed=1)
    other = prepared(tmp_path / "other", ["ct3"], seed=1)
    manifest = json.loads((other / MANIFEST).read_text())
    manifest["recipe"]["window"] = "bone"
    (other / MANIFEST).write_text(json.dumps(manifest))
    again = shutil.copytree(a, tmp_path / "again")
    before = content(a)
    for more, says in (
        (wide, "8 pixels per side, but .*wide of 16"),
        (other, "different recipes .different window."),
        (again, r"again has slices that .*a has already"),
        (a, "given twice"),
        (tmp_path / "nothing", "does not contain prepared slices"),
    ):
        with pytest.raises(MedvarError, match=says):
            append(a, more)
        with pytest.raises(MedvarError, match=says):
            merge([a, more], tmp_path / "out")
    assert content(a) == before
    assert not (tmp_path / "out").exists()
    with pytest.raises(MedvarError, match="not empty"):
        merge([a], wide)
    with pytest.raises(MedvarError, match="does not contain prepared slices"):
        append(tmp_path / "nothing", a)
    assert "slices of other were prepared by another recipe (window)" in append(a, other, any_recipe=True).remarks


def test_resplit(tmp_path: Path, prepared: Prepared) -> None:
    """Breaks for cross-validation: the same seed must be the same split, another one another."""
    folder = prepared(tmp_path / "a", [f"ct{n}" for n in range(12)] + ["mr1"])
    images = [image for _, image in content(folder)]
    splits = [resplit(folder, SplitRule(0.5, seed)).split for seed in (1, 2, 1)]
    assert splits[0] == splits[2] != splits[1]
    exact = resplit(folder, SplitRule(holdout=("ct3", "mr1")))
    assert [patient for patient, side in exact.split.items() if side == "test"] == ["ct3", "mr1"]
    assert exact.remarks == ["MR brain: every patient is held out, so nothing of it is trained on"]
    assert verify(folder) == exact
    assert len(SliceDataset(folder, "test")) == 6
    with pytest.raises(MedvarError, match="ct99"):
        resplit(folder, SplitRule(holdout=("ct99",)))
    assert Manifest.read(folder) == exact
    by_plain = resplit(folder, SplitRule(0.25, strata=("dataset",)))
    assert list(by_plain.split.values()).count("test") == 3
    assert not by_plain.remarks
    assert [image for _, image in content(folder)] == images
    append(folder, prepared(tmp_path / "b", ["mr2"], seed=1))  # the new rule stays with the folder
    assert SplitRule.of(Manifest.read(folder).recipe) == SplitRule(0.25, strata=("dataset",))


def test_one_process_changes_a_folder_at_a_time(tmp_path: Path, prepared: Prepared) -> None:
    """Breaks for clusters: of two processes that append at once, one would undo the other."""
    folder = prepared(tmp_path / "a", ["ct1"])
    more = prepared(tmp_path / "b", ["ct2"], seed=1)
    with FileLock(folder / ".lock"), pytest.raises(MedvarError, match="changed by another process"):
        append(folder, more)
    with FileLock(folder / ".lock"), pytest.raises(MedvarError, match="changed by another process"):
        resplit(folder, SplitRule())
    append(folder, more)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("at", ["os.fsync", "os.replace", "hashlib.file_digest"])
def test_a_full_disk_changes_nothing(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, at: str, links: bool
) -> None:
    """Breaks for full disks, whenever the space runs out, and for disks without hard links."""
    folder = prepared(tmp_path / "a", ["ct1", "ct2"])
    more = prepared(tmp_path / "b", ["ct3", "mr1"], seed=1)
    before, files = content(folder), entries(folder)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if not links:
            patch.setattr("os.link", full)
        patch.setattr(at, full)
        with pytest.raises(MedvarError, match=r"a cannot be written \(No space left on device\); it was not changed"):
            append(folder, more)
        with pytest.raises(MedvarError, match=r"c cannot be written \(No space left on device\); nothing was kept"):
            merge([folder, more], tmp_path / "c")
    assert content(folder) == before
    assert entries(folder) == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    if not links:
        monkeypatch.setattr("os.link", full)
    append(folder, more)
    verify(folder)


KILL = """
import os, signal, shutil, sys
from pathlib import Path
from medvar_engine.data.shards import append, merge, resplit
from medvar_engine.data.split import SplitRule

root = Path(sys.argv[1])
do = {
    "append": lambda at: append(at, root / "b"),
    "merge": lambda at: merge([at, root / "b"], at.with_name(at.name + "-out")),
    "resplit": lambda at: resplit(at, SplitRule(0.5, 1)),
}[sys.argv[2]]
for number in range(1000):
    at = root / "kills" / str(number)
    shutil.copytree(root / "a", at)
    child = os.fork()
    if child == 0:
        left = number

        def hook(event, arguments):
            global left
            reads = event == "open" and not set(str(arguments[1])) & set("wax+")
            if not reads and event in {"open", "os.link", "os.rename", "os.remove", "os.mkdir", "shutil.copyfile"}:
                if any(str(at.parent) in str(one) for one in arguments):
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left -= 1

        sys.addaudithook(hook)
        do(at)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(number)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.parametrize("what", ["append", "merge", "resplit"])
def test_a_kill_leaves_the_old_or_the_new(tmp_path: Path, prepared: Prepared, what: str) -> None:
    """Breaks for machines that lose power: killed before each single file operation, a folder must never be a mix."""
    a = prepared(tmp_path / "a", ["ct1", "ct2", "mr1", "mr2"])
    b = prepared(tmp_path / "b", ["ct3", "mr1"], seed=1)
    c = prepared(tmp_path / "c", ["ct9"], seed=2)
    done = subprocess.run([sys.executable, "-c", KILL, tmp_path, what], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout)
    assert kills > 2
    states = []
    for number in range(kills + 1):
        folder = tmp_path / "kills" / str(number)
        manifest = Manifest.read(folder) if what == "merge" else verify(folder)
        states.append(manifest.digest)
        if what == "append":
            assert manifest.slices in (12, 18)
            if manifest.slices == 12:  # what was cut off is simply done again
                append(folder, b)
            else:  # and what was to be cleared away, the next time
                append(folder, c)
            named = verify(folder)
            assert named.slices == (18 if manifest.slices == 12 else 21)
            assert entries(folder) == {MANIFEST, *named.files}
        out = folder.with_name(f"{number}-out")
        if out.exists():
            assert verify(out).slices == 18
    assert states[0] == Manifest.read(a).digest
    assert len(set(states)) == (1 if what == "merge" else 2)
