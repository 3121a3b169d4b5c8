"""Siemens mosaics, built as the CSA format says: each slice comes back at its place, as other readers have it."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import JPEGLSLossless
from scipy.spatial.transform import Rotation

from medvar_engine.data.read.scans import find_series
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError

ROWS = {"axial": (1, 0, 0, 0, 1, 0), "coronal": (1, 0, 0, 0, 0, -1), "sagittal": (0, 1, 0, 0, 0, -1)}
SIDES, STEP = (1.25, 1.5), 2.5


def csa_header(tags: dict[str, tuple[str, list[str]]]) -> bytes:
    """A CSA header of the second kind (SV10): names with their VR and values."""
    found = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, (kind, values) in tags.items():
        count = max(6, len(values))
        found += struct.pack("<64si4siii", name.encode(), len(values), kind.encode(), 0, count, 77)
        for number in range(count):
            text = values[number].encode() + b"\0" if number < len(values) else b""
            found += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return found


def mosaic(image: Any, volume: np.ndarray, orientation: np.ndarray, against: bool = False, **tags: Any) -> FileDataset:
    """A mosaic of ``volume`` (slices, rows, columns), its first voxel at −40, −30, 20 mm.

    The slices follow along the normal of rows and columns (2, 3), or ``against`` it.
    """
    count, rows, columns = volume.shape
    side = int(np.ceil(np.sqrt(count)))
    whole = np.zeros((side * rows, side * columns), np.uint16)
    for number, one in enumerate(volume):
        at = number // side * rows, number % side * columns
        whole[at[0] : at[0] + rows, at[1] : at[1] + columns] = one
    normal = np.cross(*orientation) * (-1 if against else 1)
    one = image("MR", whole, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], Manufacturer="SIEMENS", **tags)
    corner = np.asarray([-40.0, -30.0, 20.0])
    corner -= orientation[0] * SIDES[1] * (side - 1) * columns / 2 + orientation[1] * SIDES[0] * (side - 1) * rows / 2
    one.ImagePositionPatient, one.ImageOrientationPatient = corner.tolist(), orientation.ravel().tolist()
    one.PixelSpacing, one.SpacingBetweenSlices, one.SliceThickness = list(SIDES), STEP, 2.0
    block = one.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    values = {
        "EchoLinePosition": ("IS", ["32"]),
        "AcquisitionMatrixText": ("SH", [f"{rows}p*{columns}"]),
        "NumberOfImagesInMosaic": ("US", [f"{count:>8}"]),
        "SliceNormalVector": ("FD", [f"{part:.8f}" for part in normal]),
        "ProtocolSliceNumber": ("IS", ["0"]),
    }
    block.add_new(0x10, "OB", csa_header(values))
    return one


def slices(count: int = 11, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 4000, (count, 12, 10)).astype(np.uint16)


def turned(plane: str, seed: int | None) -> np.ndarray:
    """Directions of rows and columns of a plane, turned by some degrees."""
    orientation = np.reshape(ROWS[plane], (2, 3)).astype(float)
    if seed is None:
        return orientation
    turn = Rotation.from_rotvec(np.random.default_rng(seed).normal(0, 0.15, 3))
    return np.asarray(turn.apply(orientation))


def read(folder: Path, **options: Any) -> list[Volume]:
    (one,), refusals = find_series(folder)
    assert not refusals
    return list(one.load(**options))


def at_places(volume: Volume, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The values of ``volume`` at the voxels of another array in RAS mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    back = np.linalg.inv(volume.affine)
    found = world @ back[:3, :3].T + back[:3, 3]
    assert np.abs(found - np.rint(found)).max() < 0.01
    return volume.array[tuple(np.rint(found).astype(int).T)].reshape(shape)


@pytest.mark.parametrize("plane", list(ROWS))
@pytest.mark.parametrize("against", [False, True])
@pytest.mark.parametrize("seed", [None, 1])
def test_slice_positions_equal_those_of_nibabel(
    tmp_path: Path, dicom_image: Any, plane: str, against: bool, seed: int | None
) -> None:
    """Breaks for functional and diffusion MR of Siemens: tiles in disorder, or a brain upside down."""
    volume, orientation = slices(), turned(plane, seed)
    path = tmp_path / "a.dcm"
    mosaic(dicom_image, volume, orientation, against).save_as(path)
    (found,) = read(tmp_path)
    # By hand: the first slice begins at the place asked for, and the others follow along the normal.
    normal = np.cross(*orientation) * (-1 if against else 1)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([orientation[0] * SIDES[1], orientation[1] * SIDES[0], normal * STEP], axis=1)
    affine[:3, 3] = -40, -30, 20
    ras = np.diag([-1, -1, 1, 1]) @ affine
    np.testing.assert_array_equal(at_places(found, ras, volume.T.shape), volume.T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    wrapper = wrapper_from_data(pydicom.dcmread(path))
    data = wrapper.get_data()  # rows, columns, slices
    lps = np.asarray(wrapper.affine)
    np.testing.assert_array_equal(at_places(found, np.diag([-1, -1, 1, 1]) @ lps, data.shape), data)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize(("plane", "against"), [("axial", False), ("coronal", True), ("sagittal", True)])
def test_slice_positions_equal_those_of_dcm2niix(tmp_path: Path, dicom_image: Any, plane: str, against: bool) -> None:
    """Breaks for whoever compares with what everybody uses."""
    scans = tmp_path / "scans"
    scans.mkdir()
    mosaic(dicom_image, slices(), turned(plane, 2), against).save_as(scans / "a.dcm", enforce_file_format=True)
    subprocess.run(["dcm2niix", "-o", tmp_path, "-f", "a", scans], check=True, capture_output=True)
    other = nib.load(tmp_path / "a.nii")
    data = np.asanyarray(other.dataobj)
    (found,) = read(scans)
    np.testing.assert_array_equal(at_places(found, other.affine, data.shape), data)


def test_mosaics_of_a_time_series(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for functional MR: a mosaic is one time point of many, with numbers and times of its own."""
    for phase in range(9):
        one = mosaic(dicom_image, slices(seed=phase), turned("axial", None), InstanceNumber=phase + 1)
        one.AcquisitionNumber, one.AcquisitionTime = phase + 1, f"1015{2 * phase:02d}.5"
        one.compress(JPEGLSLossless, generate_instance_uid=False)
        one.save_as(tmp_path / f"{(phase * 5) % 9}.dcm")
    volumes = read(tmp_path, phase_step=4)
    assert [one.phase for one in volumes] == ["phase 1 of 9", "phase 5 of 9", "phase 9 of 9"]
    for volume, phase in zip(volumes, (0, 4, 8), strict=True):
        np.testing.assert_array_equal(volume.array, slices(seed=phase)[:, ::-1, ::-1].T)
        assert volume.spacing == pytest.approx((1.5, 1.25, 2.5))


def without_csa(one: FileDataset) -> None:
    del one[0x00291010]


def damaged(one: FileDataset) -> None:
    one[0x00291010].value = one[0x00291010].value[:200]


def of_zero_slices(one: FileDataset) -> None:
    one[0x00291010].value = one[0x00291010].value.replace(b"      11", b"       0")


def without_direction(one: FileDataset) -> None:
    one[0x00291010].value = one[0x00291010].value.replace(b"SliceNormalVector", b"SliceNormalOther_")


def of_odd_sides(one: FileDataset) -> None:
    one.Rows -= 1


def without_spacing(one: FileDataset) -> None:
    del one.SpacingBetweenSlices, one.SliceThickness


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_csa, "this mosaic lacks the CSA header"),
        (damaged, "CSA header of this mosaic is damaged"),
        (of_zero_slices, "values: 0 slices"),
        (without_direction, r"slices along \(\)"),
        (of_odd_sides, "not multiples of 4"),
        (without_spacing, "the distance of its slices"),
    ],
)
def test_mosaics_without_geometry_are_refused(tmp_path: Path, dicom_image: Any, change: Any, reason: str) -> None:
    """Breaks for mosaics that were made anonymous: the order and number of slices are lost with the private header."""
    one = mosaic(dicom_image, slices(), turned("axial", None))
    change(one)
    one.save_as(tmp_path / "a.dcm")
    found, (refusal,) = find_series(tmp_path)
    assert not found
    assert re.search(reason, refusal.reason)


def test_a_truncated_mosaic_is_refused(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for broken downloads: the last tiles would be missing."""
    path = tmp_path / "a.dcm"
    mosaic(dicom_image, slices(), turned("axial", None)).save_as(path)
    path.write_bytes(path.read_bytes()[:-50])
    (one,), _ = find_series(tmp_path)
    with pytest.raises(MedvarError, match="truncated"):
        list(one.load())


def test_b_values_of_the_csa_header(tmp_path: Path, dicom_image: Any) -> None:
    """Breaks for diffusion of older Siemens scanners, which say b-values in the CSA header alone."""
    for turn, b_value in enumerate((800, 0, 800)):
        for number, pixels in enumerate(slices(seed=turn)):
            one = dicom_image("MR", pixels, ImageType=["ORIGINAL", "PRIMARY", "M", "DIFFUSION", "NONE"])
            one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, STEP * number], list(ROWS["axial"])
            one.PixelSpacing, one.InstanceNumber = list(SIDES), 1 + 20 * turn + number
            direction = [str(float(axis == turn)) for axis in range(3)] if b_value else []
            tags = {"B_value": ("IS", [str(b_value)]), "DiffusionGradientDirection": ("FD", direction)}
            one.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", csa_header(tags))
            one.save_as(tmp_path / f"{turn}-{number}.dcm")
    (one,), refusals = find_series(tmp_path)
    assert not refusals
    volumes = list(one.load(diffusion="all"))
    assert [volume.phase for volume in volumes] == [f"b {b}, volume {n} of 3" for n, b in enumerate((0, 800, 800), 1)]
    for volume, seed in zip(volumes, (1, 0, 2), strict=True):
        np.testing.assert_array_equal(volume.array, slices(seed=seed)[:, ::-1, ::-1].T)
