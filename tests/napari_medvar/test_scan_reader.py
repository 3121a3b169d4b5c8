"""The user's own scans as layers, and where what is made of them lies in the patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medvar_engine.errors import MedvarError
from napari_medvar.layers.scan_layers import read_scans
from napari_medvar.layers.scan_metadata import SCAN, scan_of
from napari_medvar.scan_reader import get_reader

FRAME = "1.2.826.0.1.3680043.8.498.1"
SERIES = "1.2.826.0.1.3680043.8.498.2"


def write_ct(folder: Path, slices: int = 4) -> None:
    """An axial CT of 8 × 6 pixels, 0.5 × 0.7 mm, 2.5 mm apart; the value of a voxel says where it is."""
    folder.mkdir(parents=True)
    for z in range(slices):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"{SERIES}.{z + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{SERIES}.9", f"{SERIES}.8"
        dataset.FrameOfReferenceUID, dataset.Modality, dataset.PatientID = FRAME, "CT", "p1"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber, dataset.AcquisitionNumber = z + 1, 1
        dataset.ImagePositionPatient = [-20.0, -30.0, 100.0 + 2.5 * z]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.5], 2.5
        dataset.Rows, dataset.Columns = 6, 8
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1000, 1, "HU"
        rows, columns = np.indices((6, 8))
        dataset.PixelData = (1000 + z * 100 + rows * 10 + columns).astype("<i2").tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(folder / f"IM{z}", enforce_file_format=True)


class GalleryItem:
    """A layer as far as the metadata go."""

    def __init__(self, layer: Any) -> None:
        self.data, attributes, _ = layer
        self.metadata = attributes["metadata"]


@pytest.mark.parametrize("single", [False, True], ids=["folder", "one file"])
def test_a_ct_is_in_hounsfield_units_and_where_it_lies_in_the_patient(tmp_path: Path, single: bool) -> None:
    """It would be upside down, mirrored or in another unit; what is measured on it would be wrong."""
    write_ct(tmp_path / "ct")
    before = sorted(tmp_path.rglob("*"))
    source = tmp_path / "ct" / "IM2" if single else tmp_path / "ct"
    ((array, attributes, kind),) = read_scans(source).layers
    assert kind == "image"
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written beside the scan
    top = 2 if single else 3  # the slice nearest to the head comes first
    assert array.shape == (1 if single else 4, 6, 8)
    assert array[0, 0, 0] == top * 100
    assert array[0, 5, 7] == top * 100 + 57  # back and left: at the bottom right of the screen
    np.testing.assert_allclose(attributes["scale"], (0.7 if single else 2.5, 0.7, 0.5))
    np.testing.assert_allclose(attributes["translate"], (-100 - 2.5 * top, -30, -20))
    assert attributes["units"] == ("mm",) * 3
    assert attributes["contrast_limits"] == (-160, 240)
    scan = scan_of(GalleryItem((array, attributes, kind)))  # type: ignore[arg-type]
    assert scan is not None
    assert scan.unit == "HU"
    assert scan.frame_of_reference == FRAME
    np.testing.assert_allclose(scan.to_lps @ (0, 0, 0, 1), (-20, -30, 100 + 2.5 * top, 1))
    np.testing.assert_allclose(scan.to_lps @ (0, 5, 7, 1), (-16.5, -26.5, 100 + 2.5 * top, 1))


def test_an_oblique_scan_is_shown_unrotated_at_its_place(tmp_path: Path) -> None:
    """napari would cut across its slices."""
    angle = np.deg2rad(12)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 1.0, 3.0])
    affine[:3, 3] = (5, 6, 7)
    values = np.random.default_rng(0).normal(100, 20, (9, 8, 7)).astype(np.float32)
    path = tmp_path / "brain.nii.gz"
    nibabel.Nifti1Image(values, affine).to_filename(path)
    ((array, attributes, _),) = read_scans(path).layers
    assert "affine" not in attributes
    np.testing.assert_allclose(attributes["scale"], (3, 1, 1), rtol=1e-5)
    np.testing.assert_array_equal(array, values[::-1, ::-1, ::-1].T)
    to_lps = np.array(attributes["metadata"][SCAN]["to_lps"])
    np.testing.assert_allclose(to_lps @ (6, 7, 8, 1), (-5, -6, 7, 1), atol=1e-5)  # the first voxel of the file
    assert attributes["metadata"][SCAN]["unit"] == "arbitrary"


def test_what_cannot_be_opened_is_reported_in_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback, or an empty viewer without a word."""
    from napari.utils import notifications

    bad = tmp_path / "scan.nii.gz"
    bad.write_bytes(b"no scan")
    with pytest.raises(MedvarError, match=r"scan\.nii\.gz"):
        read_scans(bad)
    told: list[str] = []
    monkeypatch.setattr(notifications, "show_error", told.append)
    function = get_reader(str(bad))
    assert function is not None
    assert function(str(bad)) == [(None,)]
    assert "scan.nii.gz" in told[0]


def test_only_scans_are_taken(tmp_path: Path) -> None:
    """napari would ask for every file whom to open it with."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    write_ct(tmp_path / "ct", slices=1)
    assert get_reader(str(tmp_path / "photos")) is None
    assert get_reader(str(tmp_path / "photos" / "a.png")) is None
    assert get_reader(str(tmp_path / "ct")) is not None
    assert get_reader("somewhere/brain.NII.gz") is not None
