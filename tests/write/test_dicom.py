"""DICOM files: right for viewers and archives, and never taken for a patient's."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.request import StackPlace
from medvar_engine.write.compare import differing_pixels
from medvar_engine.write.dicom import Study, write_dicom
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import DICOM_GROUP, about_pixels, read_about_pixels, read_trace

MakeImage = Callable[..., OutputImage]
MakeTrace = Callable[..., Trace]

STUDY = Study("a set", datetime(2026, 1, 2, 3, 4, 5))
# The dictionary of dciodvfy is older than Synthetic Data (0008,001C).
UNKNOWN_TO_THE_CHECKER = (
    "Error - Attribute with an even group number is not a recognized standard attribute - (0x0008,0x001c)"
)


def written(folder: Path, images: list[OutputImage]) -> list[Path]:
    return [write_dicom(folder / f"{n}.dcm", image, STUDY, n) for n, image in enumerate(images, 1)]


def test_ct_is_in_hounsfield_units(make_output_image: MakeImage, make_trace: MakeTrace, tmp_path: Path) -> None:
    """A workstation would measure densities of no meaning."""
    pixels = np.array([[-1, -0.5, 0], [0, 1, 2]], dtype=np.float32)
    image = make_output_image(pixels=pixels, trace=make_trace(condition=Condition("CT")))
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", image, STUDY))
    assert dataset.Modality == "CT"
    assert dataset.RescaleType == "HU"
    hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    assert hu.tolist() == [[-1000, -650, -300], [-300, 400, 400]]
    low = float(dataset.WindowCenter) - 0.5 - (float(dataset.WindowWidth) - 1) / 2  # PS3.3 C.11.2.1.2
    assert (low, low + float(dataset.WindowWidth) - 1) == (-1000, 400)


@pytest.mark.parametrize(
    ("plane", "columns", "rows"),
    [("axial", "L", "P"), ("coronal", "L", "F"), ("sagittal", "P", "F"), (None, "L", "P")],
    ids=str,
)
def test_the_slice_lies_as_its_plane_says(
    make_output_image: MakeImage, make_trace: MakeTrace, tmp_path: Path, plane: str | None, columns: str, rows: str
) -> None:
    """Left and right would be swapped in the viewer, or head and feet."""
    axes = {"L": (1, 0, 0), "P": (0, 1, 0), "F": (0, 0, -1)}
    image = make_output_image(trace=make_trace(condition=Condition("CT", plane=plane)))
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", image, STUDY))
    along_columns, along_rows = np.array(axes[columns]), np.array(axes[rows])
    assert [float(v) for v in dataset.ImageOrientationPatient] == [*axes[columns], *axes[rows]]
    assert [float(v) for v in dataset.PixelSpacing] == [0.75, 0.75]
    first = np.array([float(v) for v in dataset.ImagePositionPatient])
    last = first + 0.75 * (3 * along_columns + 5 * along_rows)
    np.testing.assert_allclose(first + last, 0, atol=1e-6)  # the middle of 6 × 4 pixels is the origin


def test_a_short_axis_slice_lies_across_the_heart(
    make_output_image: MakeImage, make_trace: MakeTrace, tmp_path: Path
) -> None:
    """It would be made and then refused, or lie flat like an axial one."""
    trace = make_trace(condition=Condition("MR", "heart", "short-axis"))
    image = make_output_image(trace=trace, low=0.0, high=1.0, unit="arbitrary")
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", image, STUDY))
    orientation = np.array([float(v) for v in dataset.ImageOrientationPatient])
    columns, rows = orientation[:3], orientation[3:]
    np.testing.assert_allclose([columns @ columns, rows @ rows, columns @ rows], [1, 1, 0], atol=1e-8)
    left, back, head = np.eye(3)
    base = np.cross(columns, rows)  # away from whoever looks at it: from the apex to the base
    np.testing.assert_allclose([-base @ left, base @ back, base @ head], 3**-0.5, atol=1e-8)
    assert columns @ left > 0  # from the septum to the lateral wall
    assert rows @ head < 0  # down to the inferior wall
    path, _ = write_nifti(tmp_path / "a.nii", image)
    affine = nibabel.load(path).affine
    np.testing.assert_allclose(affine[:3, :2] / 0.75, np.array([columns, rows]).T * [[-1], [-1], [1]], atol=1e-6)


def test_dicom_files_are_marked_as_synthetic(images: list[OutputImage], tmp_path: Path) -> None:
    """A made image in an archive would be read, billed or trained on as a person's."""
    for path, image in zip(written(tmp_path, images), images, strict=True):
        dataset = pydicom.dcmread(path)
        assert dataset.SyntheticData == "YES"
        assert "SYNTHETIC" in str(dataset.PatientName)
        assert "SYNTHETIC" in dataset.PatientID
        assert "SYNTHETIC" in dataset.SeriesDescription
        assert "DERIVED" in dataset.ImageType
        purpose = dataset.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0]
        assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109100", "DCM")
        assert image.trace.bundle_id in dataset.DerivationDescription
        assert read_trace(path).to_json() == image.trace.to_json()


def test_unknown_facts_are_not_claimed(images: list[OutputImage], tmp_path: Path) -> None:
    """A slice without a size would be measured in millimetres, and one of no modality in HU."""
    classes = [pydicom.dcmread(path).SOPClassUID.name for path in written(tmp_path, images)]
    assert classes == ["CT Image Storage", *["MR Image Storage"] * 3, *["Secondary Capture Image Storage"] * 2]
    for path in (tmp_path / "5.dcm", tmp_path / "6.dcm"):
        dataset = pydicom.dcmread(path)
        assert "PixelSpacing" not in dataset
        assert "ImagePositionPatient" not in dataset
        assert "RescaleType" not in dataset


def test_a_set_is_one_study_of_separate_places(images: list[OutputImage], tmp_path: Path) -> None:
    """An archive would scatter a set over patients, or a viewer lay unrelated slices into one body."""
    datasets = [pydicom.dcmread(path) for path in written(tmp_path, images)]
    assert len({d.StudyInstanceUID for d in datasets}) == len({d.PatientID for d in datasets}) == 1
    assert len({d.SeriesInstanceUID for d in datasets}) == len({d.SOPInstanceUID for d in datasets}) == len(datasets)
    placed = [d.FrameOfReferenceUID for d in datasets if "FrameOfReferenceUID" in d]
    assert len(set(placed)) == len(placed) == 4


def test_slices_of_a_stack_are_one_series(make_output_image: MakeImage, make_trace: MakeTrace, tmp_path: Path) -> None:
    """Attributes of a series are equal in all its images (PS3.3 A.1.2); archives report conflicts otherwise."""
    traces = [make_trace(condition=Condition("CT", "chest", position=0.4 + 0.1 * i)) for i in range(3)]
    places = [StackPlace(i, 0.05, (0,) if i else ()) for i in range(3)]
    stacked = [
        replace(trace, request=replace(trace.request, stack=place)) for trace, place in zip(traces, places, strict=True)
    ]
    datasets = [pydicom.dcmread(path) for path in written(tmp_path, [make_output_image(trace=one) for one in stacked])]
    for name in ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "StudyInstanceUID", "PatientID"):
        assert len({str(one[name].value) for one in datasets}) == 1, name
    assert datasets[0].SeriesDescription == "SYNTHETIC CT chest"
    assert [one.InstanceNumber for one in datasets] == [1, 2, 3]


def test_the_same_image_is_the_same_file(images: list[OutputImage], tmp_path: Path) -> None:
    """Sending a set a second time would fill an archive with copies under new names."""
    (tmp_path / "again").mkdir()
    first, second = written(tmp_path, images), written(tmp_path / "again", images)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    other = write_dicom(tmp_path / "other.dcm", images[0], Study("another", STUDY.when))
    assert pydicom.dcmread(other).StudyInstanceUID != pydicom.dcmread(first[0]).StudyInstanceUID


def test_invalid_calls_leave_files_unchanged(make_output_image: MakeImage, tmp_path: Path) -> None:
    """A file of another kind would be overwritten, or half a file be left."""
    with pytest.raises(MedvarError, match=r"\.dcm"):
        write_dicom(tmp_path / "a.png", make_output_image())
    with pytest.raises(MedvarError, match="Cannot write"):
        write_dicom(tmp_path / "nowhere" / "a.dcm", make_output_image())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 131, 140, 400])
def test_a_damaged_file_is_reported(make_output_image: MakeImage, tmp_path: Path, cut: int) -> None:
    """A half-copied file would give a traceback in place of a reason."""
    path = write_dicom(tmp_path / "a.dcm", make_output_image(), STUDY)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(MedvarError, match=r"a\.dcm"):
        read_trace(path)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)")
def test_conforms_to_the_standard(images: list[OutputImage], tmp_path: Path) -> None:
    """Archives and workstations would refuse the files."""
    for path in written(tmp_path, images):
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        errors = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        assert [line for line in errors if not line.startswith(UNKNOWN_TO_THE_CHECKER)] == [], path.name


def test_an_archive_keeps_the_image_unchanged(
    images: list[OutputImage], tmp_path: Path, orthanc: tuple[int, int]
) -> None:
    """The hospital's archive would refuse the images, or lose the mark that they are synthetic."""
    port, http = orthanc
    paths = written(tmp_path, images)
    subprocess.run(["storescu", "127.0.0.1", str(port), *paths], check=True, timeout=60, capture_output=True)

    def get(what: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/{what}", timeout=10) as answer:
            return answer.read()

    stored = json.loads(get("instances"))
    assert len(stored) == len(paths)
    found = {}
    for one in stored:
        copy = tmp_path / f"{one}.copy"
        copy.write_bytes(get(f"instances/{one}/file"))
        dataset = pydicom.dcmread(copy)
        found[dataset.SOPInstanceUID] = dataset
    for path in paths:
        original = pydicom.dcmread(path)
        assert found[original.SOPInstanceUID] == original  # the meta header is the archive's own


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.5",
    ],
)
@pytest.mark.parametrize("lengths", ["defined", "undefined"])
@pytest.mark.parametrize("private", ["UT", "UN"])
def test_the_trace_survives_every_way_of_writing(
    images: list[OutputImage], tmp_path: Path, syntax: str, lengths: str, private: str
) -> None:
    """DICOM's default transfer syntax names no VR: an archive would give the image back without what made it."""
    for number, image in enumerate(images):
        path = write_dicom(tmp_path / f"{number}.dcm", image)
        dataset = pydicom.dcmread(path)
        if private == "UN":
            for element in dataset.group_dataset(DICOM_GROUP):
                if element.tag.element > 0xFF:
                    element.VR, element.value = "UN", str(element.value).encode() + b" " * (len(element.value) % 2)
        if lengths == "undefined":
            for element in dataset:
                if element.VR == "SQ":
                    element.is_undefined_length = True
                    for item in element.value:
                        item.is_undefined_length_sequence_item = True
        if syntax.endswith("1.2.5"):
            dataset.compress(syntax)
        elif syntax.endswith("1.2.2"):
            dataset.PixelData = np.asarray(dataset.pixel_array).byteswap().tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        big, implicit = syntax.endswith("1.2.2"), syntax == "1.2.840.10008.1.2"
        pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=not big, enforce_file_format=True)
        assert read_trace(path).to_json() == image.trace.to_json()
        assert read_about_pixels(path) == about_pixels(image)
        assert differing_pixels(path, image) == 0
