"""Preparing at scale: in several processes, on a cluster, killed and gone on with, on a disk that is full."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from logging import CRITICAL
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.data import prepare as prepare_module
from medvar_engine.data import work_units
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.prepare import prepare
from medvar_engine.data.read.refusal import Refusal
from medvar_engine.data.series_slices import slices_of
from medvar_engine.data.shards import verify
from medvar_engine.data.split import SplitRule
from medvar_engine.data.survey import ScanRules
from medvar_engine.data.work_units import work_folder
from medvar_engine.errors import MedvarError
from medvar_engine.parallel import UnitLost

RECIPE = Recipe.of(size=32, planes=["axial"])
NAMES = ScanRules(modality="MR", region="brain")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MR of four people, and a file that is none."""
    import nibabel

    folder = tmp_path_factory.mktemp("people") / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, person in enumerate(("anna", "bert", "carl", "dora")):
        array = rng.integers(0, 900, (44, 44, 6 + number)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"{person}.nii.gz")
    (folder / "carl-again.nii.gz").write_bytes((folder / "carl.nii.gz").read_bytes()[:3000])
    return folder


@pytest.fixture(scope="module")
def expected(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The result of one process that was never stopped."""
    out = tmp_path_factory.mktemp("expected") / "out"
    prepare(scans, out, RECIPE, NAMES)
    verify(out)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    return contents(out)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The series whose pixels are read, by name."""
    names: list[str] = []

    def noting(series: Any, *arguments: Any) -> Any:
        names.append(series.path.name)
        return slices_of(series, *arguments)

    monkeypatch.setattr(work_units, "slices_of", noting)
    return names


@pytest.fixture
def cluster() -> Iterator[str]:
    """A scheduler and two workers in this process."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        yield local.scheduler_address


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_make_the_same_bytes(scans: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """A data set could not be made again on another machine, and its hashes would mean nothing."""
    seen: list[tuple[int, int]] = []
    prepare(
        scans, tmp_path / "out", RECIPE, NAMES, workers=2, progress=lambda what, done, of, _: seen.append((done, of))
    )
    assert contents(tmp_path / "out") == expected
    assert seen == [(number, 5) for number in range(1, 6)]


def test_a_cluster_makes_the_same_bytes(scans: Path, expected: dict[str, bytes], tmp_path: Path, cluster: str) -> None:
    """The same for a hundred machines."""
    prepare(scans, tmp_path / "out", RECIPE, NAMES, cluster=cluster)
    assert contents(tmp_path / "out") == expected


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_worker_of_a_cluster_that_is_killed(scans: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """Breaks for whoever works on machines that are taken away: a scan that was in work would be lost, or be half."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=CRITICAL) as local:
        killed = []

        def kill(*_: object) -> None:
            if not killed:  # at the first scan that is finished, while others are in work
                killed.extend(nanny.pid for nanny in local.workers.values())
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

        prepare(scans, tmp_path / "out", RECIPE, NAMES, cluster=local.scheduler_address, progress=kill)
    assert len(killed) == 2
    assert contents(tmp_path / "out") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_killed_run_continues(scans: Path, expected: dict[str, bytes], tmp_path: Path, made: list[str]) -> None:
    """A night's work would be lost when the machine is taken away; or the result would be another one."""
    out = tmp_path / "out"
    script = (
        "import os, sys, signal\nfrom pathlib import Path\n"
        "from medvar_engine.data.prepare import prepare\nfrom medvar_engine.data.harmonise.slice_recipe import Recipe\n"
        "from medvar_engine.data.survey import ScanRules\n"
        "def progress(what, done, of, slices):\n    if done == 3:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "rules = ScanRules(modality='MR', region='brain')\n"
        "recipe = Recipe.of(size=32, planes=['axial'])\n"
        "prepare(Path(sys.argv[1]), Path(sys.argv[2]), recipe, rules, progress=progress, workers=2)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, scans, out], timeout=120, check=False)
    assert killed.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".out.parts"]
    prepare(scans, out, RECIPE, NAMES)
    assert contents(out) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(made) <= 2  # of five, whichever; the refused one is not tried again either


def stopped(scans: Path, out: Path, after: int, **more: Any) -> None:
    """Prepare, and press Ctrl-C when so many series are done."""

    def progress(what: str, done: int, of: int, slices: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(scans, out, RECIPE, NAMES, progress=progress, **more)


def test_changed_series_are_prepared_again(scans: Path, tmp_path: Path, made: list[str]) -> None:
    """Parts of other scans, of another recipe or of a broken disk would get into the data set."""
    out = tmp_path / "out"
    stopped(scans, out, 5)
    (part,) = (path for path in (tmp_path / ".out.parts").glob("*.npy") if np.load(path).shape[0] == 6)
    part.write_bytes(part.read_bytes()[:-1] + b"\x07")
    os.utime(scans / "bert.nii.gz", ns=(1, 1))
    made.clear()
    stopped(scans, out, 5)
    assert made == ["anna.nii.gz", "bert.nii.gz"]
    made.clear()
    prepare(scans, out, Recipe.of(size=40, planes=["axial"]), NAMES)
    assert len(made) == 5


def test_a_full_disk_keeps_what_is_finished(
    scans: Path, expected: dict[str, bytes], tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """People would have to start from nothing, or find half a data set."""
    out = tmp_path / "out"
    calls = 0

    def full_after(count: int, do: Callable[..., None]) -> Callable[..., None]:
        def limited(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            do(*arguments)

        return limited

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_after(3, os.replace))  # a part takes two: codes and note
        with pytest.raises(MedvarError, match=r"No space left.*run the same command again"):
            prepare(scans, out, RECIPE, NAMES)
    assert not out.exists()
    made.clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after(0, os.fsync))
        with pytest.raises(MedvarError, match="No space left"):
            prepare(scans, out, RECIPE, NAMES)
    assert not out.exists()
    made.clear()
    prepare(scans, out, RECIPE, NAMES)
    assert "anna.nii.gz" not in made
    assert contents(out) == expected


def test_a_second_process_is_refused(scans: Path, tmp_path: Path) -> None:
    """Two would write over each other's work."""
    with (
        work_folder(tmp_path / "out"),
        pytest.raises(MedvarError, match=rf"is being written by process {os.getpid()} on .*Wait"),
    ):
        prepare(scans, tmp_path / "out", RECIPE, NAMES)
    prepare(scans, tmp_path / "out", RECIPE, NAMES)


def test_a_series_that_ends_its_worker_is_refused(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One scan larger than the memory would cost all others."""
    run = prepare_module.run

    def losing(*arguments: Any, **more: Any) -> Iterator[Any]:
        for index, outcome in run(*arguments, **more):
            yield index, UnitLost("it ended its worker process") if index == 0 else outcome

    monkeypatch.setattr(prepare_module, "run", losing)
    manifest = prepare(scans, tmp_path / "out", RECIPE, NAMES)
    assert {"path": "anna.nii.gz", "reason": "it ended its worker process"} in manifest.refused
    assert set(manifest.split) == {"bert", "carl", "dora"}


def test_no_name_is_written(scans: Path, tmp_path: Path) -> None:
    """A data set that is given away would name people, if only in the list of what was left out."""
    pseudonyms = Pseudonyms(bytes(range(32)))
    refused: list[Refusal] = []
    manifest = prepare(
        scans,
        tmp_path / "out",
        RECIPE,
        replace(NAMES, pseudonyms=pseudonyms),
        split=SplitRule(holdout=("bert", pseudonyms.patient("dora"))),
        on_refusal=refused.append,
    )
    tested = {patient for patient, side in manifest.split.items() if side == "test"}
    assert tested == {pseudonyms.patient("bert"), pseudonyms.patient("dora")}
    assert manifest.refused[0]["path"] == pseudonyms.series("carl-again.nii.gz")
    assert "truncated" in manifest.refused[0]["reason"]
    for name, content in contents(tmp_path / "out").items():
        for person in (b"anna", b"bert", b"carl", b"dora", str(scans).encode(), scans.parent.name.encode()):
            assert person not in content, name
    assert [one.path for one in refused] == ["carl-again.nii.gz"]
    with pytest.raises(MedvarError, match=r"\['emil'\] are not in"):
        prepare(
            scans, tmp_path / "b", RECIPE, replace(NAMES, pseudonyms=pseudonyms), split=SplitRule(holdout=("emil",))
        )
