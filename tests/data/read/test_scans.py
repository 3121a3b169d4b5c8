"""Which files are read: links, detached headers, pairs, images that a model made; and in which orientation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from reading import only_volume

from medvar_engine.data.read.orientation import to_ras
from medvar_engine.data.read.scans import find_series
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError
from medvar_engine.write.dicom import write_dicom
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.output_image import OutputImage


def only_reason(source: Path) -> str:
    found, refusals = find_series(source)
    reasons = [one.reason for one in refusals]
    for one in found:
        with pytest.raises(MedvarError) as caught:
            list(one.load())
        reasons.append(str(caught.value))
    (reason,) = reasons
    return reason


# Orientation


@settings(max_examples=60, deadline=None)
@given(
    axes=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    turn=st.tuples(*[st.floats(-0.35, 0.35)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 5)] * 3),
)
def test_every_orientation_keeps_voxels_in_their_place(
    axes: list[int], signs: tuple[int, ...], turn: tuple[float, ...], spacing: tuple[float, ...]
) -> None:
    """Breaks for whoever's files are stored in an order we did not think of: a mirrored heart looks like a heart."""
    x, y, z = turn
    rotation = (
        np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        @ np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        @ np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    )
    affine = np.eye(4)
    affine[:3, :3] = (rotation @ np.diag(spacing))[:, axes] * np.array(signs)
    affine[:3, 3] = [5, -7, 11]
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    turned, turned_affine, sides = to_ras(array, affine, Path("scan"))
    assert sides == pytest.approx(spacing)
    assert (np.argmax(np.abs(turned_affine[:3, :3] / sides), axis=0) == [0, 1, 2]).all()
    assert (np.diag(turned_affine)[:3] > 0).all()
    before = np.argwhere(array >= 0)
    at = np.linalg.solve(turned_affine, affine @ np.c_[before, np.ones(len(before))].T)[:3].round().astype(int)
    np.testing.assert_array_equal(turned[tuple(at)], array[tuple(before.T)])


@pytest.mark.parametrize("broken", [np.inf, np.nan, 0.0, 1e9])
def test_impossible_affine_is_refused(broken: float) -> None:
    """Breaks for damaged headers: a voxel a million km long would be resampled."""
    affine = np.eye(4)
    affine[1, 1] = broken
    with pytest.raises(MedvarError, match="affine"):
        to_ras(np.zeros((3, 3, 3)), affine, Path("scan"))


# Detached headers and pairs


def test_nifti_pair_and_nifti_2(tmp_path: Path, phantom: Any, affine: Any) -> None:
    """Breaks for old archives of .hdr and .img, and for new ones of NIfTI-2."""
    (tmp_path / "pair").mkdir()
    nib.save(nib.Nifti1Pair(phantom, affine), tmp_path / "pair/scan.hdr")
    nib.save(nib.Nifti2Image(phantom, affine), tmp_path / "second.nii.gz")
    for path in (tmp_path / "pair", tmp_path / "second.nii.gz"):
        volume = only_volume(path)
        np.testing.assert_array_equal(volume.array, phantom)
        np.testing.assert_allclose(volume.affine, affine)
    (tmp_path / "pair/scan.img").unlink()
    assert "scan.img" in only_reason(tmp_path / "pair")


@pytest.mark.parametrize("name", ["scan.nhdr", "scan.mhd", "SCAN.MHD"])
@pytest.mark.parametrize("packed", [False, True])
def test_detached_headers(tmp_path: Path, phantom: Any, affine: Any, nifti: Any, name: str, packed: bool) -> None:
    """Breaks for files written with their voxels apart, as elastix and Slicer do."""
    image = sitk.ReadImage(str(nifti(tmp_path / "scan.nii", phantom)))
    (tmp_path / "apart").mkdir()
    sitk.WriteImage(image, str(tmp_path / "apart" / name.lower()), packed)
    (tmp_path / "apart" / name.lower()).rename(tmp_path / "apart" / name)
    (one,), _ = find_series(tmp_path / "apart")
    assert len(one.data_files) == 1
    volume = only_volume(tmp_path / "apart")
    np.testing.assert_array_equal(volume.array, phantom)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("scan.mhd", "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = {}\n"),
        (
            "scan.nhdr",
            "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\nendian: little\ndata file: {}\n\n",
        ),
    ],
)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("../secret.raw", "folder of the header"),
        ("/etc/passwd", "folder of the header"),
        ("..\\secret.raw", "folder of the header"),
        ("link.raw", "a link"),
        ("folder/secret.raw", "a link"),
        ("missing.raw", "missing"),
        ("slice%03d.raw 1 4 1", "several files"),
        ("LIST", "several files"),
    ],
)
def test_data_file_elsewhere_is_refused(tmp_path: Path, name: str, header: str, data: str, reason: str) -> None:
    """Breaks for whoever opens a stranger's header: any file of theirs would become pixels, and be passed on."""
    (tmp_path / "secret.raw").write_bytes(bytes(range(128)))
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    (folder / "folder").symlink_to(tmp_path)
    (folder / name).write_text(header.format(data))
    assert reason in only_reason(folder / name)


# Links


def test_circular_links_are_not_followed(tmp_path: Path, phantom: Any, nifti: Any) -> None:
    """Breaks for folders with a link to themselves: the search would never end, or find all again."""
    nifti(tmp_path / "source/scan.nii", phantom)
    (tmp_path / "source/again").symlink_to(tmp_path / "source")
    (tmp_path / "source/one.nii").symlink_to(tmp_path / "source/other.nii")
    (tmp_path / "source/other.nii").symlink_to(tmp_path / "source/one.nii")
    (tmp_path / "source/copy.nii").symlink_to(tmp_path / "source/scan.nii")
    found, refusals = find_series(tmp_path / "source")
    assert [one.path.name for one in found] == ["scan.nii"]
    assert ["circle" in one.reason for one in refusals] == [True, True]


def test_links_outside_the_folder_are_refused(tmp_path: Path, phantom: Any, nifti: Any) -> None:
    """Breaks for a study that must hold what it shows: another patient's scan would come in by a link."""
    nifti(tmp_path / "other/scan.nii", phantom)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/scan.nii").symlink_to(tmp_path / "other/scan.nii")
    (tmp_path / "source/folder").symlink_to(tmp_path / "other")
    found, refusals = find_series(tmp_path / "source")
    assert not found
    assert ["out of" in one.reason for one in refusals] == [True, True]


def test_content_in_a_hidden_folder_is_read_by_its_link(tmp_path: Path, phantom: Any, nifti: Any) -> None:
    """Breaks for data sets under git-annex: their files are links into a hidden folder, whose names say nothing."""
    nifti(tmp_path / ".git/annex/MD5-123.nii", phantom)
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "sub-01/t1.nii").symlink_to(tmp_path / ".git/annex/MD5-123.nii")
    (one,), refusals = find_series(tmp_path)
    assert not refusals
    assert one.path == tmp_path / "sub-01/t1.nii"


def test_file_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    """Breaks for old disks with names in another code: a traceback when the report is written."""
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff.dcm")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has names in Unicode only")
    (refusal,) = find_series(tmp_path)[1]
    assert "not valid text" in refusal.reason
    str(refusal).encode()


# Images that a model made


def test_synthetic_dicom_is_refused_unless_requested(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for the next model: trained on the last one's images, it gets worse and nobody knows why."""
    purpose, equipment = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109100", "DCM"
    purpose.CodeMeaning = "Synthesizing Equipment"
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    series(tmp_path / "tag", phantom, SyntheticData="YES")
    series(tmp_path / "equipment", phantom, ContributingEquipmentSequence=[equipment])
    series(tmp_path / "real", phantom, SyntheticData="NO")
    for name in ("tag", "equipment"):
        found, refusals = find_series(tmp_path / name)
        assert not found
        assert {"--include-synthetic" in one.reason for one in refusals} == {True}
        np.testing.assert_array_equal(only_volume(tmp_path / name, synthetic=True).array, phantom)
    np.testing.assert_array_equal(only_volume(tmp_path / "real").array, phantom)


@pytest.mark.parametrize(
    ("comment", "refused"),
    [
        ('{"synthetic": true, "seed": 3}', True),
        ('{"synthetic": false}', False),
        ('"synthetic"', False),
        ("not JSON", False),
        ("[" * 100_000, False),
    ],
)
def test_synthetic_nifti_is_refused_unless_requested(
    tmp_path: Path, phantom: Any, affine: Any, comment: str, refused: bool
) -> None:
    """Breaks for the next model, as above; somebody else's comment must not cost a scan."""
    image = nib.Nifti1Image(phantom, affine)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, comment.encode()))
    nib.save(image, tmp_path / "scan.nii.gz")
    if refused:
        assert "generative model" in only_reason(tmp_path)
    np.testing.assert_array_equal(only_volume(tmp_path, synthetic=refused).array, phantom)


def test_what_the_engine_writes_is_refused(tmp_path: Path, make_trace: Any) -> None:
    """Breaks when the writers change their words: the engine's own images would be trained on."""
    pixels = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    image = OutputImage(pixels, make_trace(), spacing_mm=0.75, low=-1000.0, high=400.0, unit="HU")
    write_nifti(tmp_path / "made.nii.gz", image)
    write_dicom(tmp_path / "made.dcm", image)
    found, refusals = find_series(tmp_path)
    assert not found
    assert ["generative model" in one.reason for one in refusals] == [True, True]


# Series that repeat


def test_echoes_at_several_times(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for multi-echo scans over time under one UID: no tag alone tells their images apart."""
    for echo in (1, 2):
        for time in (1, 2, 3):
            series(
                tmp_path / f"{echo}{time}",
                phantom + 10 * echo + time,
                EchoNumbers=echo,
                TemporalPositionIdentifier=time,
            )
    found, refusals = find_series(tmp_path)
    assert not refusals

    def means(phase_step: int) -> list[list[float]]:
        return [
            [float(volume.array.mean() - phantom.mean()) for volume in one.load(phase_step=phase_step)] for one in found
        ]

    # Echoes are scans of their own, and times are phases of each.
    assert means(1) == [pytest.approx([11, 12, 13], abs=0.01), pytest.approx([21, 22, 23], abs=0.01)]
    assert means(2) == [pytest.approx([11, 13], abs=0.01), pytest.approx([21, 23], abs=0.01)]


def test_b_values_in_one_multiframe_file(tmp_path: Path, phantom: Any, multiframe: Any) -> None:
    """Breaks for diffusion in enhanced DICOM without dimension indices: b-values would mix within a volume."""
    path = multiframe(tmp_path / "scan.dcm", phantom, phases=2)
    dataset = pydicom.dcmread(path)
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        diffusion = Dataset()
        diffusion.DiffusionBValue = [1000.0, 0.0][groups.FrameContentSequence[0].DimensionIndexValues[2] - 1]
        del groups.FrameContentSequence
        groups.MRDiffusionSequence = [diffusion]
    dataset.save_as(path)
    (one,), _ = find_series(path)
    zero, thousand = one.load(diffusion="all")
    (lowest,) = one.load(phase_step=1)
    np.testing.assert_array_equal(lowest.array, phantom + 1)
    np.testing.assert_array_equal(zero.array, phantom + 1)
    np.testing.assert_array_equal(thousand.array, phantom)


# Agreement


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.4321, -1000.7)])
def test_same_as_simpleitk(
    tmp_path: Path, phantom: Any, series: Any, plane: str, slope: float, intercept: float
) -> None:
    """Breaks for whoever compares with another reader: HU and places must be the same, to the last bit."""
    series(tmp_path, phantom, plane, modality="CT", RescaleSlope=slope, RescaleIntercept=intercept)
    assert_same_as_simpleitk(only_volume(tmp_path), tmp_path)


def assert_same_as_simpleitk(volume: Volume, folder: Path) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = sitk.DICOMOrient(reader.Execute(), "RAS")  # index 0 at the patient's left, back and feet
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T.astype(np.float32))
    corners = [[0, 0, 0], [side - 1 for side in volume.array.shape]]
    for corner in corners:
        lps = image.TransformIndexToPhysicalPoint(corner)
        np.testing.assert_allclose((volume.affine @ [*corner, 1])[:3], np.array(lps) * [-1, -1, 1], atol=1e-3)
