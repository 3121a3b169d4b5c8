"""`medvar prepare`: what it asks, says and leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from filelock import FileLock

from medvar_engine.conditions import Condition
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import Manifest
from medvar_engine.write.dicom import write_dicom
from medvar_engine.write.marks import Marks
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.output_image import OutputImage

Medvar = Callable[..., Any]
OPTIONS = ("--modality", "MR", "--region", "brain", "--plane", "axial", "--size", 32)


def write_scans(folder: Path, *people: str) -> Path:
    """MR of people with names, textured."""
    folder.mkdir()
    rng = np.random.default_rng(len(people[0]))
    for person in people:
        array = rng.integers(0, 900, (44, 44, 8)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"{person}.nii.gz")
    return folder


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_scans(tmp_path / "scans", "anna", "bert", "carl")


def test_names_are_not_written_unless_requested(medvar: Medvar, scans: Path, tmp_path: Path) -> None:
    """Whoever gives slices away would give the names of people away with them."""
    (scans / "dora.nii.gz").write_bytes(b"no scan")
    listed = tmp_path / "refused.csv"
    run = medvar("prepare", scans, tmp_path / "out", *OPTIONS, "--holdout", "bert", "--refused", listed)
    assert run.code == 0, run.err
    assert "A new key" in run.err
    text = (tmp_path / "out" / "manifest.json").read_text()
    manifest = json.loads(text)
    assert not any(name in text for name in ("anna", "bert", "carl", "dora", "scans"))
    assert list(manifest["split"].values()).count("test") == 1
    assert manifest["refused"][0]["path"].startswith("s-")
    assert "dora.nii.gz," in listed.read_text()
    assert "refused dora.nii.gz:" in run.err
    again = medvar("prepare", scans, tmp_path / "public", *OPTIONS, "--patient-ids", "public", "--holdout", "bert")
    assert again.code == 0, again.err
    assert Manifest.read(tmp_path / "public").split == {"anna": "train", "bert": "test", "carl": "train"}


def test_settings_reach_the_recipe(medvar: Medvar, scans: Path, tmp_path: Path) -> None:
    """Options that do nothing would go unnoticed until the images are looked at."""
    more = ("--spacing", 1.5, "--window", "-100:300", "--phase-step", 3, "--workers", 2, "--key", tmp_path / "my.key")
    run = medvar("prepare", scans, tmp_path / "out", *OPTIONS, *more)
    assert run.code == 0, run.err
    recipe = Manifest.read(tmp_path / "out").recipe
    assert (recipe["spacing_mm"], recipe["phase_step"]) == (1.5, 3)
    assert recipe["ct_windows_hu"]["chest"] == [-100, 300]
    assert (tmp_path / "my.key").is_file()


def test_slices_are_added(medvar: Medvar, scans: Path, tmp_path: Path) -> None:
    """New scans would mean preparing all over again; or those of before would be gone."""
    more = write_scans(tmp_path / "more", "emil")
    out = tmp_path / "out"
    lost = medvar("prepare", more, out, *OPTIONS, "--append")
    assert (lost.code, "no manifest.json" in lost.err) == (1, True)
    assert medvar("prepare", scans, out, *OPTIONS).code == 0
    before = Manifest.read(out)
    wrong = medvar("prepare", more, out, *OPTIONS, "--append", "--spacing", 2)
    assert (wrong.code, "spacing_mm differ" in wrong.err) == (1, True)
    run = medvar("prepare", more, out, *OPTIONS, "--append")
    assert run.code == 0, run.err
    after = Manifest.read(out)
    assert after.slices > before.slices
    assert before.split.items() < after.split.items()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more", "out", "scans"]


def test_mismatched_slices_are_not_added(medvar: Medvar, scans: Path, tmp_path: Path) -> None:
    """What can never be added would lie hidden on the disk for good; what cannot be added now would be lost."""
    more, out = write_scans(tmp_path / "more", "emil"), tmp_path / "out"
    assert medvar("prepare", scans, out, *OPTIONS).code == 0
    there = sorted(path.name for path in tmp_path.iterdir())
    before = Manifest.read(out).slices
    again = medvar("prepare", scans, out, *OPTIONS, "--append")
    assert (again.code, again.out) == (1, "")
    assert "Nothing was added" in again.err
    assert "has already" in again.err
    assert sorted(path.name for path in tmp_path.iterdir()) == there
    (more / "dora.nii.gz").write_bytes(b"no scan")
    unknown = medvar("prepare", more, out, *OPTIONS, "--append", "--holdout", "fritz")
    assert (unknown.code, "['fritz'] are not in" in unknown.err) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == there
    with FileLock(out / ".lock"):
        busy = medvar("prepare", more, out, *OPTIONS, "--append")
    assert (busy.code, "changed by another process" in busy.err) == (1, True)
    kept = tmp_path / ".out.more"
    assert f"medvar data append {out} {kept} adds it" in " ".join(busy.err.split())
    assert medvar("data", "append", out, kept).code == 0
    assert Manifest.read(out).slices > before
    repeated = medvar("prepare", more, out, *OPTIONS, "--append")  # which removes what was left
    assert (repeated.code, "has already" in repeated.err) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_an_interrupted_run_continues(
    medvar: Medvar, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C people would not know that the same command goes on, and delete what is finished."""
    from medvar_engine.data import work_units

    slices_of, calls = work_units.slices_of, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return slices_of(*arguments)

    monkeypatch.setattr(work_units, "slices_of", interrupted)
    run = medvar("prepare", scans, tmp_path / "out", *OPTIONS)
    assert run.code == 130
    assert "Run the same command again" in run.err
    assert not (tmp_path / "out").exists()
    assert medvar("prepare", scans, tmp_path / "out", *OPTIONS).code == 0
    assert calls == 4  # the first series was not read again


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--window", "a:b"), "low:high"),
        (("--window", "fog"), "Unknown CT window"),
        (("--faces", "blur"), "keep, crop, skip"),
        (("--plane", "up"), "Unknown planes"),
        (("--recipe", "nothing"), "There is no recipe 'nothing'"),
        (("--append", "--overwrite"), "choose one"),
        (("--refused", "OUT/refused.csv"), "must not lie in"),
        (("--spacing", "-1"), "spacing_mm"),
        (("--cluster", "fish"), "No cluster answers at fish"),
        (("--holdout", "emil"), "['emil'] are not in"),
    ],
)
def test_wrong_options(medvar: Medvar, scans: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """A typing error would end in a traceback, or be found out after hours."""
    given = [option.replace("OUT", str(tmp_path / "out")) for option in options]
    run = medvar("prepare", scans, tmp_path / "out", *OPTIONS, *given)
    assert (run.code, run.out) == (1, "")
    assert said in run.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("write", [write_dicom, write_nifti])
def test_synthetic_images_are_accepted_on_request(
    medvar: Medvar, tmp_path: Path, make_trace: Any, write: Any, plane: str
) -> None:
    """What one asks for by name would be refused; or be turned, mirrored, or taken for another plane."""
    pixels = np.random.default_rng(0).uniform(-1, 1, (64, 64)).astype(np.float32)
    trace = make_trace(condition=Condition("CT", "chest", plane))
    (tmp_path / "set").mkdir()
    ending = {write_dicom: ".dcm", write_nifti: ".nii.gz"}[write]
    write(tmp_path / "set" / f"one{ending}", OutputImage(pixels, trace, 0.75, -1000.0, 400.0, "HU"))
    options = ("--modality", "CT", "--region", "chest", "--size", 64, "--patient-ids", "public")
    plain = medvar("prepare", tmp_path / "set", tmp_path / "plain", *options)
    assert (plain.code, "--include-synthetic" in plain.err, "Traceback" in plain.err) == (1, True, False)
    run = medvar("prepare", tmp_path / "set", tmp_path / "out", *options, "--include-synthetic")
    assert run.code == 0, run.err
    slices = SliceDataset(tmp_path / "out", "train")
    (facts,) = slices.rows
    assert (facts.plane, facts.spacing_mm, facts.low, facts.high) == (plane, 0.75, -1000.0, 400.0)
    np.testing.assert_allclose(slices.batch([0])[0, 0], pixels, atol=1 / 1400 + 1e-4)  # HU are whole numbers


@pytest.mark.parametrize(
    ("write", "spacing_mm", "marks", "told"),
    [
        (write_dicom, None, Marks(), "to_slices"),
        (write_nifti, None, Marks(), "to_slices"),
        (write_dicom, 0.75, Marks(burned_in=True), "without --burn-in"),
        (write_nifti, 0.75, Marks(burned_in=True), "without --burn-in"),
    ],
)
def test_unusable_synthetic_images_are_refused(
    medvar: Medvar, tmp_path: Path, make_trace: Any, write: Any, spacing_mm: float | None, marks: Marks, told: str
) -> None:
    """A model would learn letters, or wrong sizes; or nobody would know what to do."""
    pixels = np.random.default_rng(0).uniform(-1, 1, (64, 64)).astype(np.float32)
    (tmp_path / "set").mkdir()
    ending = {write_dicom: ".dcm", write_nifti: ".nii.gz"}[write]
    image = OutputImage(pixels, make_trace(), spacing_mm, -1000.0, 400.0, "HU", marks=marks)
    write(tmp_path / "set" / f"one{ending}", image)
    options = ("--modality", "CT", "--region", "chest", "--include-synthetic")
    run = medvar("prepare", tmp_path / "set", tmp_path / "out", *options)
    assert (run.code, told in run.err) == (1, True), run.err
    assert not (tmp_path / "out").exists()


def test_a_scan_with_one_slice_is_still_refused(medvar: Medvar, tmp_path: Path) -> None:
    """A scout view would be trained on as if it were a scan."""
    folder = tmp_path / "scans"
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 900, (64, 64, 1)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / "one.nii.gz")
    run = medvar("prepare", folder, tmp_path / "out", *OPTIONS, "--include-synthetic")
    assert (run.code, "at least 3 slices" in run.err) == (1, True)
