"""Masks as files: in each format the numbers, names and colours come back, and other programs take them."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from tiny_pairs import make_pairs

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.sets.make_image import make_image
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import files_of, save_image, write_picture
from medvar_engine.write.mask_file import mask_path, read_mask
from medvar_engine.write.picture import Picture
from medvar_engine.write.provenance import read_trace

STUDY = Study("pairs", datetime(2026, 1, 2, 3, 4, 5))


@pytest.fixture(scope="module")
def picture(pair_bundle: Bundle) -> Picture:
    return make_image(pair_bundle, Condition("CT", "abdomen", "axial"), seed=3, device="cpu")


def test_an_image_knows_its_mask(picture: Picture) -> None:
    assert picture.mask is not None
    assert picture.mask.any()
    assert [one.name for one in picture.structures] == ["square", "bar"]


@pytest.mark.parametrize(("name", "ending"), [("png", ".png"), ("png16", ".png"), ("nifti", ".nii.gz")])
def test_masks_come_back(name: str, ending: str, picture: Picture, tmp_path: Path) -> None:
    """What was written can be given again, and tells of itself that it is synthetic and how it was made."""
    path = tmp_path / f"a{ending}"
    files = write_picture(path, name, picture, STUDY, 1)
    assert files == files_of(path, name, masks=True)
    assert files[-1].name == f"a-mask{ending}"
    np.testing.assert_array_equal(read_mask(files[-1], picture.structures, 16), picture.mask)
    np.testing.assert_array_equal(read_trace(files[-1]).pyramid.sequence, picture.trace.pyramid.sequence)
    again = write_picture(tmp_path / f"b{ending}", name, picture, STUDY, 1)
    assert again[-1].read_bytes() == files[-1].read_bytes()


@pytest.mark.parametrize(
    ("name", "image", "mask"),
    [
        ("png", "scan.v1.png", "scan.v1-mask.png"),
        ("png16", "scan.v2.PNG", "scan.v2-mask.png"),
        ("nifti", "1.2.3.nii.gz", "1.2.3-mask.nii.gz"),
        ("nifti", "1.2.3.nii", "1.2.3-mask.nii.gz"),
        ("dicom", "1.2.840.1.dcm", "1.2.840.1-mask.dcm"),
        ("dicom", "1.2.840", "1.2.840-mask.dcm"),
    ],
)
def test_a_name_with_dots_keeps_them(name: str, image: str, mask: str) -> None:
    """The masks of scan.v1.png and scan.v2.png would be one file, which the later one overwrites."""
    assert mask_path(Path(image), name) == Path(mask)


def test_a_png_has_colours(picture: Picture, tmp_path: Path) -> None:
    """A viewer shows structures apart, and the numbers are still there."""
    with Image.open(save_image(picture, tmp_path / "a.png")[-1]) as image:
        assert image.getpalette()[:9] == [0, 0, 0, 255, 0, 0, 0, 0, 255]
        assert [one["name"] for one in json.loads(image.info["Structures"])] == ["square", "bar"]
        assert image.info["Synthetic"] == "yes"


def test_nifti_lies_on_its_image(picture: Picture, tmp_path: Path) -> None:
    image, _, mask = save_image(picture, tmp_path / "a.nii.gz")
    one, other = nibabel.load(image), nibabel.load(mask)
    np.testing.assert_array_equal(one.affine, other.affine)
    assert one.shape == other.shape
    assert other.get_data_dtype() == np.uint8
    assert other.header.get_intent()[0] == "label"


def test_a_segmentation_refers_to_its_image(picture: Picture, tmp_path: Path) -> None:
    """highdicom reads it back; it says that it is synthetic, of which image, and in which colours."""
    image, mask = write_picture(tmp_path / "a.dcm", "dicom", picture, STUDY, 1)
    source = pydicom.dcmread(image)
    found = highdicom.seg.segread(mask)
    assert found.SyntheticData == "YES"
    assert found.StudyInstanceUID == source.StudyInstanceUID
    assert found.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert [one.SegmentLabel for one in found.SegmentSequence] == ["square", "bar"]
    volume = found.get_volume(combine_segments=True, allow_missing_positions=True)
    np.testing.assert_array_equal(volume.array[0], picture.mask)
    [reference] = found.get_source_image_uids()
    assert reference[2] == source.SOPInstanceUID
    again = write_picture(tmp_path / "b.dcm", "dicom", picture, STUDY, 1)
    assert again[1].read_bytes() == mask.read_bytes()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
def test_segmentations_keep_the_standard(picture: Picture, tmp_path: Path) -> None:
    mask = write_picture(tmp_path / "a.dcm", "dicom", picture, STUDY, 1)[1]
    said = subprocess.run(["dciodvfy", str(mask)], capture_output=True, text=True, check=False).stderr.splitlines()
    errors = [line for line in said if line.startswith("Error") and "(0x0008,0x001c)" not in line]
    assert not errors


def test_a_segmentation_needs_a_place(picture: Picture, tmp_path: Path) -> None:
    """Of an image of unknown pixel size nothing is written, not even the image."""
    from dataclasses import replace

    with pytest.raises(MedvarError, match="needs a CT or MR image of known pixel size"):
        write_picture(tmp_path / "a.dcm", "dicom", replace(picture, spacing_mm=None), STUDY, 1)
    assert not list(tmp_path.iterdir())


def given(folder: Path, values: np.ndarray, mode: str = "L") -> Path:
    path = folder / "mask.png"
    Image.fromarray(values).convert(mode).save(path)
    return path


def test_bad_masks(picture: Picture, tmp_path: Path) -> None:
    """Each in one sentence that names the file."""
    good = make_pairs(1)[0, 1].astype(np.uint8)
    for path, said in (
        (lambda: given(tmp_path, good[:8]), r"has another size than the model's images: \(8, 16\)"),
        (
            lambda: given(tmp_path, good + 3),
            r"has values from 3 to 5, but a mask for this model has 0, 1 square, 2 bar",
        ),
        (lambda: given(tmp_path, good * 0), r"is an empty mask"),
        (lambda: given(tmp_path, good, "RGB"), r"colour PNG \(RGB\)"),
        (lambda: tmp_path / "none.png", r"does not exist"),
        (lambda: tmp_path / "none.txt", r"neither PNG, DICOM nor NIfTI"),
    ):
        with pytest.raises(MedvarError, match=said):
            read_mask(path(), picture.structures, 16)
