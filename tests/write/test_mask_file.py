"""Masks as files: in each format the numbers, names and colours come back, and other programs take them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.orientations import ornt_transform
from PIL import Image
from tiny_pairs import make_pairs

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.sets.make_image import make_image
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import files_of, save_image, write_image
from medvar_engine.write.mask_file import mask_path, read_mask
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import read_trace

STUDY = Study("pairs", datetime(2026, 1, 2, 3, 4, 5))


@pytest.fixture(scope="module")
def image(pair_bundle: Bundle) -> OutputImage:
    return make_image(pair_bundle, Condition("CT", "abdomen", "axial"), seed=3, device="cpu")


def test_an_image_knows_its_mask(image: OutputImage) -> None:
    assert image.mask is not None
    assert image.mask.any()
    assert [one.name for one in image.structures] == ["square", "bar"]


@pytest.mark.parametrize(("name", "ending"), [("png", ".png"), ("png16", ".png"), ("nifti", ".nii.gz")])
def test_masks_come_back(name: str, ending: str, image: OutputImage, tmp_path: Path) -> None:
    """What was written can be given again, and tells of itself that it is synthetic and how it was made."""
    path = tmp_path / f"a{ending}"
    files = write_image(path, name, image, STUDY, 1)
    assert files == files_of(path, name)
    assert files[-1].name == f"a-mask{ending}"
    np.testing.assert_array_equal(read_mask(files[-1], image.structures, 16), image.mask)
    np.testing.assert_array_equal(read_trace(files[-1]).pyramid.sequence, image.trace.pyramid.sequence)
    again = write_image(tmp_path / f"b{ending}", name, image, STUDY, 1)
    assert again[-1].read_bytes() == files[-1].read_bytes()


@pytest.mark.parametrize(("name", "ending"), [("png", ".png"), ("nifti", ".nii.gz"), ("dicom", ".dcm")])
def test_no_image_is_left_with_the_mask_of_another(name: str, ending: str, image: OutputImage, tmp_path: Path) -> None:
    """An older mask would be taken for that of the new image, which has none; a file of another program stays."""
    path, alone = tmp_path / f"a{ending}", replace(image, mask=None)
    *_, mask = write_image(path, name, image, STUDY, 1)
    written = write_image(path, name, alone, STUDY, 1)
    assert set(tmp_path.iterdir()) == set(written)
    mask.write_bytes(path.read_bytes())  # no mask
    write_image(path, name, alone, STUDY, 1)
    assert mask.is_file()


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


def test_a_png_has_colours(image: OutputImage, tmp_path: Path) -> None:
    """A viewer shows structures apart, and the numbers are still there."""
    with Image.open(save_image(image, tmp_path / "a.png")[-1]) as opened:
        assert opened.getpalette()[:9] == [0, 0, 0, 255, 0, 0, 0, 0, 255]
        assert [one["name"] for one in json.loads(opened.info["Structures"])] == ["square", "bar"]
        assert opened.info["Synthetic"] == "yes"


def test_nifti_lies_on_its_image(image: OutputImage, tmp_path: Path) -> None:
    image_file, _, mask_file = save_image(image, tmp_path / "a.nii.gz")
    one, other = nibabel.load(image_file), nibabel.load(mask_file)
    np.testing.assert_array_equal(one.affine, other.affine)
    assert one.shape == other.shape
    assert other.get_data_dtype() == np.uint8
    assert other.header.get_intent()[0] == "label"


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "ASR", "SLA"])
def test_nifti_of_other_axes_is_turned(plane: str, axes: str, image: OutputImage, tmp_path: Path) -> None:
    """A mask that another program stored by other axes would be given upside down, or mirrored."""
    condition = replace(image.trace.request.condition, plane=plane)
    trace = replace(image.trace, request=replace(image.trace.request, condition=condition))
    *_, path = save_image(replace(image, trace=trace), tmp_path / "a.nii.gz")
    stored = nibabel.load(path)
    transform = ornt_transform(nibabel.io_orientation(stored.affine), nibabel.orientations.axcodes2ornt(axes))
    nibabel.save(stored.as_reoriented(transform), tmp_path / "turned.nii.gz")
    np.testing.assert_array_equal(read_mask(tmp_path / "turned.nii.gz", image.structures, 16), image.mask)


def test_a_segmentation_refers_to_its_image(image: OutputImage, tmp_path: Path) -> None:
    """highdicom reads it back; it says that it is synthetic, of which image, and in which colours."""
    image_file, mask = write_image(tmp_path / "a.dcm", "dicom", image, STUDY, 1)
    source = pydicom.dcmread(image_file)
    found = highdicom.seg.segread(mask)
    assert found.SyntheticData == "YES"
    assert found.StudyInstanceUID == source.StudyInstanceUID
    assert found.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert [one.SegmentLabel for one in found.SegmentSequence] == ["square", "bar"]
    volume = found.get_volume(combine_segments=True, allow_missing_positions=True)
    np.testing.assert_array_equal(volume.array[0], image.mask)
    [reference] = found.get_source_image_uids()
    assert reference[2] == source.SOPInstanceUID
    again = write_image(tmp_path / "b.dcm", "dicom", image, STUDY, 1)
    assert again[1].read_bytes() == mask.read_bytes()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
def test_segmentations_keep_the_standard(image: OutputImage, tmp_path: Path) -> None:
    mask = write_image(tmp_path / "a.dcm", "dicom", image, STUDY, 1)[1]
    said = subprocess.run(["dciodvfy", str(mask)], capture_output=True, text=True, check=False).stderr.splitlines()
    errors = [line for line in said if line.startswith("Error") and "(0x0008,0x001c)" not in line]
    assert not errors


def test_a_segmentation_needs_a_place(image: OutputImage, tmp_path: Path) -> None:
    """Of an image of unknown pixel size nothing is written, not even the image."""
    from dataclasses import replace

    with pytest.raises(MedvarError, match="needs a CT or MR image of known pixel size"):
        write_image(tmp_path / "a.dcm", "dicom", replace(image, spacing_mm=None), STUDY, 1)
    assert not list(tmp_path.iterdir())


def given(folder: Path, values: np.ndarray, mode: str = "L") -> Path:
    path = folder / "mask.png"
    Image.fromarray(values).convert(mode).save(path)
    return path


def given_nifti(folder: Path, values: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / "mask.nii.gz")
    return folder / "mask.nii.gz"


def test_a_png_of_16_bits_is_a_mask(image: OutputImage, tmp_path: Path) -> None:
    """Many programs write label maps so."""
    good = make_pairs(1)[0, 1].astype(np.uint16)
    Image.fromarray(good).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", image.structures, 16), good)


def cut(path: Path) -> Path:
    """The file without its last third, as of an interrupted copy."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


def uncompressed(path: Path) -> Path:
    other = path.with_suffix("")
    nibabel.save(nibabel.load(path), other)
    return other


def test_bad_masks_are_refused(image: OutputImage, tmp_path: Path) -> None:
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
        (lambda: given_nifti(tmp_path, good * 0.5), r"the value 0.5. A mask must hold whole numbers"),
        (lambda: given_nifti(tmp_path, np.where(good == 1, np.nan, good)), r"the value nan"),
        (lambda: given_nifti(tmp_path, good.astype(np.int16) - 1), r"has values from -1 to 1"),
        (lambda: given_nifti(tmp_path, good.astype(np.complex64)), r"holds colours or complex numbers"),
        (lambda: given_nifti(tmp_path, np.zeros((16, 16), [(c, "u1") for c in "RGB"])), r"holds colours or complex"),
        (lambda: given_nifti(tmp_path, np.stack([good] * 2, -1)), r"has another size .* \(16, 16, 2\)"),
        (lambda: cut(given(tmp_path, good)), r"may be damaged or incomplete: \w"),
        (lambda: cut(given_nifti(tmp_path, good)), r"not a complete NIfTI file"),
        (
            lambda: cut(uncompressed(given_nifti(tmp_path, good))),
            r"may be damaged or incomplete: \w",
        ),
        (lambda: tmp_path / "none.png", r"does not exist"),
        (lambda: tmp_path / "none.txt", r"neither PNG, DICOM nor NIfTI"),
    ):
        with pytest.raises(MedvarError, match=said):
            read_mask(path(), image.structures, 16)
