"""Sets as files: each layout as its readers expect it, and every file says that it is synthetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from medvar_engine.bundle.read import Bundle
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.harmonise.slicing import SliceRules
from medvar_engine.data.prepare import prepare
from medvar_engine.data.read.scans import find_series
from medvar_engine.data.survey import ScanRules
from medvar_engine.errors import MedvarError
from medvar_engine.sets.image_set import ImageSet
from medvar_engine.sets.layouts import set_format
from medvar_engine.sets.mixture import Mixture
from medvar_engine.sets.set_manifest import SetManifest
from medvar_engine.sets.set_plan import SetFormat
from medvar_engine.write.provenance import read_trace

MakeSet = Callable[..., SetManifest]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("file_format", ["png", "png16", "nifti", "dicom"])
def test_folders_by_label(make: MakeSet, mixture: Mixture, tmp_path: Path, file_format: str) -> None:
    """A loader would find no classes, or one too many; or an image would not say what made it."""
    make(tmp_path, kind=SetFormat("imagefolder", file_format))
    folders = sorted((tmp_path / "images").iterdir())
    assert [path.name for path in folders] == ["ct-chest-axial", "mr-brain"]
    images = sorted(
        (path for path in tmp_path.glob("images/*/*") if path.suffix != ".json"), key=lambda path: path.name
    )
    assert [int(path.name[:8]) for path in images] == list(range(10))
    assert [read_trace(path).request for path in images] == mixture.requests(range(10))


def test_a_set_of_files_is_the_shards_in_pixels(make: MakeSet, tmp_path: Path) -> None:
    """The layout would decide what is drawn."""
    make(tmp_path / "png", kind=SetFormat("imagefolder", "png16"))
    make(tmp_path / "shards")
    images = ImageSet.open(tmp_path / "shards")
    for path in tmp_path.glob("png/images/*/*.png"):
        made = images[int(path.stem)]
        np.testing.assert_allclose(np.asarray(Image.open(path)), (made.image + 1) * 32767.5, atol=1)
    with pytest.raises(MedvarError, match="Read its files one by one"):
        ImageSet.open(tmp_path / "png")


def test_units_of_dicom_are_studies(make: MakeSet, tmp_path: Path) -> None:
    """An archive would show one patient of a hundred thousand series; or a set gone on with would differ in times."""
    make(tmp_path, kind=SetFormat("imagefolder", "dicom"))
    before = files(tmp_path)
    datasets = [pydicom.dcmread(path) for path in sorted(tmp_path.rglob("*.dcm"))]
    assert {one.SyntheticData for one in datasets} == {"YES"}
    assert len({one.StudyInstanceUID for one in datasets}) == 3
    assert len({one.SOPInstanceUID for one in datasets}) == 10
    (tmp_path / "units" / "00001.json").unlink()
    next(tmp_path.rglob("00000005.dcm")).unlink()
    make(tmp_path, kind=SetFormat("imagefolder", "dicom"), batch=1)
    assert files(tmp_path) == before


def test_bids(make: MakeSet, tmp_path: Path) -> None:
    """A BIDS tool would refuse the folder, or take images for people."""
    make(tmp_path, kind=SetFormat("bids", "nifti"))
    about = json.loads((tmp_path / "dataset_description.json").read_text())
    assert (about["DatasetType"], about["BIDSVersion"]) == ("derivative", "1.10.0")
    assert "SYNTHETIC" in about["Name"]
    header, *rows = [line.split("\t") for line in (tmp_path / "participants.tsv").read_text().splitlines()]
    assert header == ["participant_id", "modality", "region", "plane", "dataset", "contrast", "position", "seed"]
    assert len(rows) == 10
    for subject, modality, *_, seed in rows:
        folder, suffix = {"CT": ("ct", "ct"), "MR": ("anat", "mri")}[modality]
        path = tmp_path / subject / folder / f"{subject}_desc-synthetic_{suffix}.nii.gz"
        assert nibabel.load(path).shape == (16, 16, 1)
        assert read_trace(path).request.seed == int(seed)
        assert json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())["synthetic"] is True
    ignored = (tmp_path / ".bidsignore").read_text().split()
    assert "units/" in ignored


def test_nnunet(make: MakeSet, mixture: Mixture, tmp_path: Path) -> None:
    """nnU-Net would normalise MR as CT, or wait for labels that there are not."""
    with pytest.raises(MedvarError, match="one modality per channel, but the mixture has CT, MR"):
        make(tmp_path / "both", kind=SetFormat("nnunet", "nifti"))
    assert not (tmp_path / "both").exists()
    make(tmp_path, Mixture(mixture.components[:1]), kind=SetFormat("nnunet", "nifti"))
    about = json.loads((tmp_path / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "CT"}
    assert about["numTraining"] == len(list((tmp_path / "imagesTr").glob("*_0000.nii.gz"))) == 10
    assert "Labels are absent" in about["description"]
    assert "There are no labels" in (tmp_path / "README.md").read_text()
    assert not (tmp_path / "labelsTr").exists()


@pytest.mark.parametrize("kind", [SetFormat("bids", "nifti"), SetFormat("imagefolder", "dicom")])
def test_prepare_refuses_synthetic_datasets(make: MakeSet, tmp_path: Path, kind: SetFormat) -> None:
    """Images of a model would be trained on as if they were patients."""
    make(tmp_path, kind=kind)
    series, refused = find_series(tmp_path)
    assert series == []
    assert sum("made by a generative model" in refusal.reason for refusal in refused) == 10


@pytest.mark.parametrize("kind", [SetFormat("bids", "nifti"), SetFormat("imagefolder", "dicom")])
def test_prepare_accepts_synthetic_datasets_on_request(
    make: MakeSet, mixture: Mixture, tmp_path: Path, kind: SetFormat
) -> None:
    """Whoever trains on a set on purpose would be refused all the same, or get slices that are not its images."""
    make(tmp_path / "set", Mixture(mixture.components[:1]), count=3, kind=kind)
    make(tmp_path / "shards", Mixture(mixture.components[:1]), count=3)
    recipe = Recipe(size=16, rules=SliceRules(min_side=8, min_foreground=0.0))
    region = ScanRules(modality="CT", region="chest")
    with pytest.raises(MedvarError, match="medvar prepare --include-synthetic"):
        prepare(tmp_path / "set", tmp_path / "slices", recipe, region)
    prepare(tmp_path / "set", tmp_path / "slices", recipe, replace(region, include_synthetic=True))
    slices = SliceDataset(tmp_path / "slices")
    images = ImageSet.open(tmp_path / "shards")
    assert {(row.plane, row.spacing_mm, row.unit) for row in slices.rows} == {("axial", 0.75, "HU")}
    made = {one.image.tobytes(): one.image for one in images}
    for image in slices.batch(np.arange(len(slices)))[:, 0]:
        assert min(np.abs(image - one).max() for one in made.values()) < 1 / 1400 + 1e-4  # HU are whole numbers
    assert len(slices) == len(made)


def test_a_disk_that_cannot_be_written(make: MakeSet, tmp_path: Path) -> None:
    """Files of a class would be missing without a word."""
    (tmp_path / "set").mkdir()
    make(tmp_path / "set", count=1, kind=SetFormat("imagefolder", "png"))
    brain = tmp_path / "set" / "images" / "mr-brain"
    brain.write_text("mine")
    with pytest.raises(MedvarError, match="mr-brain"):
        make(tmp_path / "set", kind=SetFormat("imagefolder", "png"))
    brain.unlink()
    make(tmp_path / "set", kind=SetFormat("imagefolder", "png"))
    assert len(list(tmp_path.rglob("*.png"))) == 10


@pytest.mark.parametrize(
    ("layout", "file_format", "kind"),
    [
        (None, None, SetFormat("shards", "uint16")),
        (None, "shards", SetFormat("shards", "uint16")),
        (None, "dicom", SetFormat("imagefolder", "dicom")),
        ("imagefolder", None, SetFormat("imagefolder", "png")),
        ("bids", None, SetFormat("bids", "nifti")),
        ("nnunet", "nifti", SetFormat("nnunet", "nifti")),
        ("bids", "png", None),
        ("bids", "shards", None),
        ("shards", "png", None),
    ],
)
def test_layouts_and_formats(layout: str | None, file_format: str | None, kind: SetFormat | None) -> None:
    """PNG would be called NIfTI, or a call be guessed at."""
    if kind is None:
        with pytest.raises(MedvarError, match="The layout"):
            set_format(layout, file_format)
    else:
        assert set_format(layout, file_format) == kind


def test_colour_is_refused(make: MakeSet, bundle: Bundle, tmp_path: Path) -> None:
    """It would fail after the first unit."""
    from dataclasses import replace

    with pytest.raises(MedvarError, match="Only grey images"):
        make(tmp_path / "set", bundle=replace(bundle, image_channels=3))
    assert not (tmp_path / "set").exists()
