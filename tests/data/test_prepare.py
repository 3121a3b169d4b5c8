"""`prepare`: from a folder to shards, with the reason for everything left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.prepare import prepare
from medvar_engine.data.split import SplitRule
from medvar_engine.data.survey import ScanRules
from medvar_engine.errors import MedvarError

SMALL = Recipe.of(size=32, planes=["axial"])
HEADER = "path,patient,modality,region,contrast,format,slices_or_shape,source,licence,notes\n"


@pytest.fixture
def scans(tmp_path: Path, phantom: Any, nifti: Any, series: Any) -> Path:
    """Three patients: MR as NIfTI twice, CT as DICOM; a label map beside them; an index."""
    folder = tmp_path / "scans"
    nifti(folder / "mr" / "one.nii.gz", phantom, codes="LPS")
    nifti(folder / "mr" / "two.nii.gz", phantom[::-1])
    nifti(folder / "mr" / "two_labels.nii.gz", (phantom > 700).astype(np.uint8))
    series(folder / "ct", phantom, modality="CT", RescaleSlope=1, RescaleIntercept=-600, BodyPartExamined="CHEST")
    (folder / "index.csv").write_text(
        HEADER
        + "mr/one.nii.gz,p1,MR,brain,T1,NIfTI,,Some Data 1.0,MIT,\n"
        + "mr/two.nii.gz,p2,MRI,Brain,T1/FLAIR,NIfTI,,Some Data 1.0,MIT,\n"
        + 'ct,p3,CT,chest,,DICOM,,"LIDC-IDRI, case 1",CC BY 3.0,\n'
    )
    return folder


def test_the_index_describes_everything(scans: Path, tmp_path: Path) -> None:
    """Breaks for whoever writes an index: labels, licences and patients must come from it."""
    seen: list[tuple[str, int, int, int]] = []
    manifest = prepare(scans, tmp_path / "out", Recipe(32), progress=lambda *what: seen.append(what))
    dataset = SliceDataset(tmp_path / "out")
    assert len(dataset) == manifest.slices
    by_patient = {row.patient: row for row in dataset.rows}
    assert (by_patient["p1"].region, by_patient["p1"].contrast, by_patient["p1"].dataset) == ("brain", "T1", "some")
    assert by_patient["p2"].contrast is None  # T1 or FLAIR
    assert (by_patient["p3"].dataset, by_patient["p3"].licence) == ("lidc-idri", "CC BY 3.0")
    assert (by_patient["p3"].low, by_patient["p3"].high, by_patient["p3"].unit) == (-1000, 400, "HU")
    assert {row.plane for row in dataset.rows} == {"axial", "coronal", "sagittal"}
    assert [one["path"] for one in manifest.refused] == ["mr/two_labels.nii.gz"]
    assert manifest.split["p3"] == "train"
    assert sorted(manifest.split[patient] for patient in ("p1", "p2")) == ["test", "train"]
    assert manifest.remarks[0] == "CT chest: not tested, it has one patient only"
    assert [what[:3] for what in seen] == [(name, i + 1, 3) for i, name in enumerate(sorted(what[0] for what in seen))]
    assert seen[-1] == ("mr/two.nii.gz", 3, 3, manifest.slices)


def test_same_slice_from_every_format(tmp_path: Path, phantom: Any, nifti: Any, series: Any) -> None:
    """Breaks for mixed collections: the same scan as NIfTI and DICOM must give the same training images."""
    nifti(tmp_path / "a" / "scan.nii.gz", phantom, codes="PIR")
    series(tmp_path / "b", phantom, "sagittal")
    batches = []
    for source in ("a", "b"):
        prepare(tmp_path / source, tmp_path / f"{source}-out", Recipe(40), ScanRules(modality="MR", region="brain"))
        dataset = SliceDataset(tmp_path / f"{source}-out")
        batches.append(dataset.batch(range(len(dataset))))
    np.testing.assert_allclose(*batches, atol=1e-4)


def test_pixels_map_back_to_hounsfield_units(scans: Path, tmp_path: Path, phantom: Any) -> None:
    """Breaks for whoever measures on slices: low and high of the row must give the HU back."""
    prepare(scans, tmp_path / "out", Recipe.of(size=48, planes=["axial"], window="bone"))
    dataset = SliceDataset(tmp_path / "out")
    index = next(i for i, row in enumerate(dataset.rows) if row.patient == "p3" and row.position_mm == 100.0 + 2 * 21)
    row = dataset.rows[index]
    hu = (dataset[index][0][0] + 1) / 2 * (row.high - row.low) + row.low
    assert row.spacing_mm == pytest.approx(1.5)
    middle = phantom[14:34, 17:27, 21].astype(float) - 600
    assert hu[20:28, 14:34].mean() == pytest.approx(middle.mean(), abs=15)
    assert dataset.manifest.recipe["ct_windows_hu"]["chest"] == [-500, 1300]


def test_headers_and_arguments_without_an_index(tmp_path: Path, phantom: Any, series: Any, nifti: Any) -> None:
    """Breaks for people with a plain DICOM folder, who should need no index."""
    series(
        tmp_path / "in" / "ct", phantom, modality="CT", RescaleSlope=1, RescaleIntercept=-600, BodyPartExamined="LUNG"
    )
    prepare(tmp_path / "in", tmp_path / "out", SMALL)
    row = SliceDataset(tmp_path / "out").rows[0]
    assert (row.patient, row.modality, row.region, row.dataset) == ("someone", "CT", "chest", None)
    other = np.random.default_rng(0).uniform(-900, 900, phantom.shape).astype(np.float32)  # of another patient
    nifti(tmp_path / "in" / "sub-07" / "anat" / "T1w.nii.gz", other)
    manifest = prepare(
        tmp_path / "in", tmp_path / "out2", SMALL, ScanRules(region="Heart", dataset="My Set", modality="CT")
    )
    dataset = SliceDataset(tmp_path / "out2")
    assert {(row.region, row.dataset) for row in dataset.rows} == {("heart", "my-set")}
    assert set(manifest.split) == {"someone", "sub-07"}
    assert not manifest.refused


def test_nifti_needs_names(tmp_path: Path, phantom: Any, nifti: Any) -> None:
    """Breaks for NIfTI users: what is missing, and how to give it, must be said."""
    nifti(tmp_path / "in" / "sub-07" / "T1w.nii.gz", phantom)
    with pytest.raises(MedvarError, match=r"modality and region is not known.*index\.csv"):
        prepare(tmp_path / "in", tmp_path / "out", SMALL)
    manifest = prepare(tmp_path / "in", tmp_path / "out", SMALL, ScanRules(modality="mri", region="brain"))
    assert set(manifest.split) == {"sub-07"}
    assert any("guessed" in remark for remark in manifest.remarks)


def test_bad_files_are_refused_and_the_rest_is_prepared(scans: Path, tmp_path: Path) -> None:
    """Breaks for large collections: one bad file must not cost the night."""
    (scans / "mr" / "one.nii.gz").write_bytes((scans / "mr" / "one.nii.gz").read_bytes()[:2000])
    sorted((scans / "ct").iterdir())[20].unlink()
    manifest = prepare(scans, tmp_path / "out", SMALL)
    reasons = {one["path"]: one["reason"] for one in manifest.refused}
    assert "truncated" in reasons["mr/one.nii.gz"]
    assert any("missing" in reason for path, reason in reasons.items() if path.startswith("ct/"))
    assert {row.patient for row in SliceDataset(tmp_path / "out").rows} == {"p2"}
    assert str(tmp_path) not in str(manifest.refused)


def test_if_everything_is_refused_nothing_is_written(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for wrong folders: an error that says why, and no empty data set."""
    series(tmp_path / "in", phantom, BodyPartExamined="BRAIN", change=lambda number, dataset: number != 20)
    with pytest.raises(MedvarError, match="1 slices are missing"):
        prepare(tmp_path / "in", tmp_path / "out", SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_empty_folder(tmp_path: Path) -> None:
    """Breaks for a mistyped input folder."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("nothing")
    with pytest.raises(MedvarError, match=r"No images found below .*looked for DICOM"):
        prepare(tmp_path / "in", tmp_path / "out")
    with pytest.raises(MedvarError, match="does not exist"):
        prepare(tmp_path / "nowhere", tmp_path / "out")


def test_same_input_same_bytes(scans: Path, tmp_path: Path) -> None:
    """Breaks for reproducing a model: preparing twice must give the same shards, table and split."""
    for name in ("a", "b"):
        prepare(scans, tmp_path / name, SMALL, split=SplitRule(seed=3))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_held_out_patients_are_tested(scans: Path, tmp_path: Path) -> None:
    """Breaks for fixed test sets, and for a typing error that would leak a test patient."""
    manifest = prepare(scans, tmp_path / "out", SMALL, split=SplitRule(holdout=("p1",)))
    assert manifest.split == {"p1": "test", "p2": "train", "p3": "train"}
    with pytest.raises(MedvarError, match=r"\['p9'\] are not in"):
        prepare(scans, tmp_path / "out2", SMALL, split=SplitRule(holdout=("p9",)))
    assert not (tmp_path / "out2").exists()


def test_contradictions_of_header_and_index_are_refused(scans: Path, tmp_path: Path) -> None:
    """Breaks for slips in an index: MR windows on CT, silently."""
    text = (scans / "index.csv").read_text().replace("ct,p3,CT", "ct,p3,MR")
    (scans / "index.csv").write_text(text + "gone.nii.gz,p4,MR,brain,,,,,,\n")
    manifest = prepare(scans, tmp_path / "out", SMALL)
    assert "index.csv says MR, but the DICOM header says CT" in str(manifest.refused)
    assert "no image was found there" in str(manifest.refused)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,patient\nx,y\n", "columns"),
        (HEADER + "../x,p,MR,brain,,,,,,\n", "inside the folder"),
        (HEADER + "x,,MR,brain,,,,,,\n", "line 2: patient is empty"),
        (HEADER + "x,p,PET,brain,,,,,,\n", "line 2: Unknown modality 'PET'"),
    ],
)
def test_bad_indexes_are_refused(tmp_path: Path, phantom: Any, nifti: Any, text: str, reason: str) -> None:
    """Breaks for whoever writes an index by hand: the line and the column must be named."""
    nifti(tmp_path / "x.nii.gz", phantom)
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(MedvarError, match=reason):
        prepare(tmp_path, tmp_path / "out")


def test_values_that_cannot_be_hounsfield_units_are_refused(tmp_path: Path, nifti: Any) -> None:
    """Breaks for CT stored as HU + 1024: every window would show white."""
    array = np.zeros((50, 50, 50), np.int16)
    array[10:40, 10:40, 10:40] = np.random.default_rng(0).normal(1060, 40, (30, 30, 30))
    nifti(tmp_path / "in" / "scan.nii.gz", array)
    with pytest.raises(MedvarError, match="subtract 1024"):
        prepare(tmp_path / "in", tmp_path / "out", rules=ScanRules(modality="CT", region="abdomen"))


def test_output_inside_the_input_is_not_read(scans: Path, tmp_path: Path) -> None:
    """Breaks for who prepares the folder they are in: at the second time slices would be made of slices."""
    prepare(scans, tmp_path / "elsewhere", SMALL)
    for _ in range(2):
        prepare(scans, scans / "slices", SMALL, overwrite=True)
        for path in (tmp_path / "elsewhere").iterdir():
            assert (scans / "slices" / path.name).read_bytes() == path.read_bytes()


def test_output_around_the_input_is_refused(scans: Path) -> None:
    """Breaks for `medvar prepare scans .`: overwriting would delete the scans."""
    with pytest.raises(MedvarError, match="lie inside"):
        prepare(scans, scans.parent, overwrite=True)
    with pytest.raises(MedvarError, match="lie inside"):
        prepare(scans, scans, overwrite=True)
