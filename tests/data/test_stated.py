"""Volumes in files: how they lie is stated, or assumed as asked; relatives of NIfTI and label maps are named."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel import cifti2
from reading import only_volume

from medvar_engine.data import series_slices
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.prepare import prepare
from medvar_engine.data.read import dicom_file, read_itk, read_nifti, volume_files
from medvar_engine.data.read import scans as read
from medvar_engine.data.read.assumed_geometry import Assumed
from medvar_engine.data.read.label_maps import looks_like_labels
from medvar_engine.data.read.scans import find_series
from medvar_engine.data.survey import ScanRules
from medvar_engine.errors import MedvarError

SPACE = "space: {}\nspace directions: (1.5,0,0) (0,1.25,0) (0,0,2)\nspace origin: (0,0,0)\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\n{}DimSize = 48 44 42\nElementType = MET_SHORT\n"


def nrrd(path: Path, array: np.ndarray, where: str) -> Path:
    head = f"NRRD0005\ntype: short\ndimension: 3\n{where}sizes: 48 44 42\nendian: little\nencoding: raw\n\n"
    path.write_bytes(head.encode() + array.astype("<i2").tobytes("F"))
    return path


def meta(path: Path, array: np.ndarray, fields: str) -> Path:
    path.write_bytes((META.format(fields) + "ElementDataFile = LOCAL\n").encode() + array.astype("<i2").tobytes("F"))
    return path


def reason(source: Path) -> str:
    found, (refusal,) = find_series(source)
    assert not found
    return refusal.reason


@pytest.mark.parametrize(
    "where",
    [
        "",
        SPACE.format("scanner-xyz"),
        SPACE.format("3D-right-handed"),
        SPACE.replace("space: {}", "space dimension: 3"),
        "spacings: 1 1 2\n",
    ],
)
def test_nrrd_without_geometry_is_refused(tmp_path: Path, phantom: Any, where: str) -> None:
    """Breaks for NRRD of scanners and programs that know no patient: planes and sides would be guesses."""
    assert "lacks the orientation in the patient" in reason(nrrd(tmp_path / "a.nrrd", phantom, where))


@pytest.mark.parametrize(
    "space", ["left-posterior-superior", "LPS", "right-anterior-superior", "RAS", "left-anterior-superior"]
)
def test_nrrd_with_geometry_is_read(tmp_path: Path, phantom: Any, space: str) -> None:
    """Breaks for every NRRD of 3D Slicer."""
    assert only_volume(nrrd(tmp_path / "a.nrrd", phantom, SPACE.format(space))).spacing == (1.5, 1.25, 2.0)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("um", 0.001), ("µm", 0.001), ("cm", 10)])
def test_units_of_nrrd(tmp_path: Path, phantom: Any, unit: str, factor: float) -> None:
    """Breaks for microscopes and small animals: a thousandfold error of every length."""
    units = f'space units: "{unit}" "{unit}" "{unit}"\n'
    path = nrrd(tmp_path / "a.nrrd", phantom, SPACE.format("LPS") + units)
    if unit == "µm":  # NRRD is ASCII by its format, and written as Latin-1 by some
        path.write_bytes(path.read_bytes().replace("µ".encode(), b"\xb5"))
    assert only_volume(path).spacing == pytest.approx([side * factor for side in (1.5, 1.25, 2.0)])


def test_units_other_than_lengths_are_refused(tmp_path: Path, phantom: Any) -> None:
    """Breaks for volumes over wavelength or time: they are no scans."""
    units = 'space units: "mm" "mm" "s"\n'
    assert "lengths are in mm, s" in reason(nrrd(tmp_path / "a.nrrd", phantom, SPACE.format("LPS") + units))


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ("", "the orientation .* and the size"),
        ("ElementSpacing = 1 1 2\n", "the orientation in the patient"),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", "the size of its voxels"),
    ],
)
def test_metaimage_without_geometry_is_refused(tmp_path: Path, phantom: Any, fields: str, missing: str) -> None:
    """Breaks for MetaImage headers written by hand."""
    import re

    assert re.search(missing, reason(meta(tmp_path / "a.mha", phantom, fields)))


def test_assumed_geometry_is_used_with_a_remark(tmp_path: Path, phantom: Any) -> None:
    """Breaks for people who know how their files lie: they can say so, and the result tells of it."""
    meta(tmp_path / "a.mha", phantom, "")
    volume = only_volume(tmp_path, assumed=Assumed("LPS", 2.0))
    np.testing.assert_array_equal(volume.array, phantom[::-1, ::-1])
    assert volume.spacing == (2.0, 2.0, 2.0)
    assert len(volume.remarks) == 2
    (tmp_path / "b").mkdir()
    nrrd(tmp_path / "b" / "a.nrrd", phantom, SPACE.format("scanner-xyz"))
    assert only_volume(tmp_path / "b", assumed=Assumed("RAS")).spacing == (1.5, 1.25, 2.0)
    np.testing.assert_array_equal(only_volume(tmp_path / "b", assumed=Assumed("RAS")).array, phantom)
    (tmp_path / "c").mkdir()
    nib.save(nib.Nifti1Image(phantom, None), tmp_path / "c" / "a.nii")
    np.testing.assert_array_equal(only_volume(tmp_path / "c", assumed=Assumed("RAS")).array, phantom)
    out = tmp_path / "out"
    manifest = prepare(
        tmp_path / "c", out, Recipe.of(size=32), ScanRules(modality="MR", region="brain", assumed=Assumed("RAS"))
    )
    assert any("RAS is assumed" in one for one in manifest.remarks)


@pytest.mark.parametrize("orientation", ["", "LP", "LPSS", "LRS", "XYZ", "lps"])
def test_invalid_orientations_are_refused(orientation: str) -> None:
    """Breaks for typing errors: they must be answered, not guessed."""
    with pytest.raises(MedvarError, match="orientation"):
        Assumed(orientation)


def test_stated_geometry_has_priority(tmp_path: Path, phantom: Any, nifti: Any) -> None:
    """Breaks for folders in which some files state it and some do not."""
    nifti(tmp_path / "a.nii.gz", phantom, codes="PIR")
    volume = only_volume(tmp_path, assumed=Assumed("LPS", 9.0))
    np.testing.assert_array_equal(volume.array, phantom)
    assert volume.remarks == ()


# NIfTI


@pytest.mark.parametrize("shear", [0.05, np.tan(np.radians(20))])
def test_sheared_nifti_is_refused_as_tilted(tmp_path: Path, phantom: Any, affine: Any, shear: float) -> None:
    """Breaks for tilted head CT that a converter wrote with a sheared affine: sagittal slices are skewed."""
    affine = affine.copy()  # other tests have it too
    affine[1, 2] = 2 * shear
    nib.save(nib.Nifti1Image(phantom, affine), tmp_path / "a.nii")
    (one,), _ = find_series(tmp_path)
    with pytest.raises(MedvarError, match="gantry tilt"):
        list(one.load())


def test_cifti_and_statistics_are_named(tmp_path: Path, phantom: Any, affine: Any, nifti: Any) -> None:
    """Breaks for every tree of fMRIPrep: one relative of NIfTI ended the run."""
    nifti(tmp_path / "good.nii.gz", phantom)
    cube = cifti2.BrainModelAxis.from_mask(np.ones((4, 4, 4), bool), affine=np.eye(4), name="thalamus_left")
    image = cifti2.Cifti2Image(np.zeros((1, 64), np.float32), (cifti2.ScalarAxis(["made up"]), cube))
    image.to_filename(tmp_path / "sub.dscalar.nii")
    for name, intent in (("t.nii", "t test"), ("vector.nii", "vector"), ("label.nii", "label")):
        statistic = nib.Nifti1Image(phantom, affine)
        statistic.header.set_intent(intent)
        nib.save(statistic, tmp_path / name)
    found, refusals = find_series(tmp_path)
    assert [one.path.name for one in found] == ["good.nii.gz"]
    assert ["CIFTI" in one.reason for one in refusals if "dscalar" in one.path] == [True]
    assert len(refusals) == 4


@pytest.mark.parametrize(
    ("intent", "described", "said"),
    [
        (1001, b"", "an estimate of a parameter"),
        (0, b"Tissue class 1", "a probability map"),
        (0, b"SPM{T_[17.0]} - contrast 1: listening", "a statistic"),
        (0, b"spm_spm:beta (0001) - Sn(1) word", "a statistic"),
    ],
)
def test_maps_of_which_the_header_says_so(
    tmp_path: Path, phantom: Any, affine: Any, intent: int, described: bytes, said: str
) -> None:
    """Breaks for folders of SPM: segments and statistics have names that say nothing."""
    image = nib.Nifti1Image(phantom, affine)
    image.header["intent_code"], image.header["descrip"] = intent, described
    nib.save(image, tmp_path / "c1.nii")
    found, (refusal,) = find_series(tmp_path)
    assert not found
    assert said in refusal.reason


def test_metres_that_are_millimetres_are_doubted(tmp_path: Path, phantom: Any, affine: Any) -> None:
    """Breaks for programs that write 1 for the unit of mm: voxels a metre large."""
    image = nib.Nifti1Image(phantom, affine)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    (one,), _ = find_series(tmp_path)
    with pytest.raises(MedvarError, match="mm are probably meant"):
        list(one.load())


# Label maps


def parcels(count: int, background: int) -> np.ndarray:
    from scipy.spatial import cKDTree

    generator = np.random.default_rng(0)
    shape = (40, 40, 30)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    labels = cKDTree(generator.uniform(0, shape, (count, 3))).query(grid)[1].reshape(shape) + 1
    inside = sum(((np.arange(side) - side / 2) / side) ** 2 for side in shape[:1])
    head = np.broadcast_to(inside[:, None, None] < 0.15, shape)
    return np.where(head, labels, background).astype(np.int16)


def test_label_maps_of_many_labels_and_of_thin_ones(phantom: Any) -> None:
    """Breaks for atlases of 400 parcels, for −1 that stands for none, and for outlines one voxel thick."""
    assert looks_like_labels(parcels(400, 0))
    assert looks_like_labels(parcels(60, -1))
    assert looks_like_labels(parcels(400, 0).astype(np.float32))
    head = parcels(2, 0) > 0
    edges = np.zeros(head.shape, np.uint8)
    edges[1:] = head[1:] != head[:-1]
    assert looks_like_labels(edges)
    assert looks_like_labels(edges * 3 + np.roll(edges, 2, 0))
    assert not looks_like_labels(np.full((9, 9, 9), 3))  # blank, which is another reason


@pytest.mark.parametrize("factors", [(2, 2, 2), (4, 4, 1), (3, 1, 5)])
def test_an_enlarged_scan_is_not_a_label_map(phantom: Any, factors: tuple[int, int, int]) -> None:
    """Breaks for 8-bit scans that a viewer exported in a larger matrix: most neighbours are alike."""
    scan = (phantom / 6).astype(np.uint8)
    for axis, factor in enumerate(factors):
        scan = np.repeat(scan, factor, axis)
    assert not looks_like_labels(scan)


def test_a_smooth_scan_of_few_values_is_not_a_label_map() -> None:
    """Breaks for filtered 8-bit scans: neighbours differ by nothing or by one."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, 60),) * 3, indexing="ij")
    assert not looks_like_labels((120 * np.exp(-(x**2 + y**2 + z**2))).astype(np.uint8))


# Other files


def test_packed_dicom(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for archives that pack each file of a series by itself."""
    for path in series(tmp_path, phantom):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    np.testing.assert_array_equal(only_volume(tmp_path).array, phantom)


def test_packed_dicom_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for cut downloads and for bombs: the file is named, and memory is not taken."""
    (tmp_path / "cut.dcm.gz").write_bytes(gzip.compress(bytes(5000))[:20])
    monkeypatch.setitem(dicom_file.open_header.__kwdefaults__, "largest", 2**20)
    (tmp_path / "bomb.dcm.gz").write_bytes(gzip.compress(bytes(2**22)))
    found, refusals = find_series(tmp_path)
    assert not found
    assert sorted(Path(one.path).name for one in refusals) == ["bomb.dcm.gz", "cut.dcm.gz"]


@pytest.mark.parametrize(
    ("module", "name", "bad"),
    [
        (read, "read_headers", "bad.dcm"),
        (read_nifti, "check", "bad.nii"),
        (read_itk, "check", "bad.nrrd"),
        (read, "_find_inside", "bad.zip"),
        (read, "looks_like_dicom", "bad.dcm"),
        (read_nifti, "read", "bad.nii"),
        (read_itk, "read", "bad.nrrd"),
        (volume_files, "to_ras", "bad.nii"),
    ],
)
@pytest.mark.parametrize("error", [TypeError("odd"), RecursionError("deep"), MemoryError(), OSError("disk")])
def test_no_file_ends_a_run(
    tmp_path: Path,
    phantom: Any,
    nifti: Any,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    bad: str,
    error: Any,
) -> None:
    """Breaks for whoever prepares 40,000 files over night, and finds a traceback of the third in the morning."""
    import zipfile

    scans = tmp_path / "scans"
    nifti(scans / "good.nii.gz", phantom)
    if bad.endswith(".zip"):
        with zipfile.ZipFile(scans / bad, "w") as file:
            file.write(scans / "good.nii.gz", "inner.nii.gz")
    elif bad.endswith(".nrrd"):
        nrrd(scans / bad, phantom, SPACE.format("LPS"))
    elif bad.endswith(".nii"):
        nifti(scans / bad, phantom[::-1])
    else:
        (scans / bad).write_bytes(b"x" * 500)
    usual = getattr(module, name)

    def broken(*arguments: Any, **options: Any) -> Any:
        if any(bad in str(one) for one in arguments):
            raise error
        return usual(*arguments, **options)

    monkeypatch.setattr(module, name, broken)
    manifest = prepare(scans, tmp_path / "out", Recipe.of(size=32), ScanRules(modality="MR", region="brain"))
    assert manifest.slices
    assert [one["path"] for one in manifest.refused] == [bad]


def test_grouping_refuses_one_series_alone(
    tmp_path: Path, phantom: Any, series: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks the same way where the fault is in no file alone: the other series must be read."""
    series(tmp_path / "bad", phantom, SeriesInstanceUID="1.2.3.666")
    series(tmp_path / "good", phantom)
    usual = read.group

    def broken(headers: Any) -> Any:
        if any(one.series_uid.endswith("666") for one in headers):
            raise ArithmeticError("odd")
        return usual(headers)

    monkeypatch.setattr(read, "group", broken)
    found, (refusal,) = find_series(tmp_path)
    assert [one.uid for one in found] == ["1.2.3.4"]
    assert "ArithmeticError" in refusal.reason


@pytest.mark.parametrize("name", ["harmonise", "cut", "treat_face"])
def test_no_series_ends_a_run(
    tmp_path: Path, phantom: Any, nifti: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Breaks the same way when a scan is read and then shows what nobody thought of."""
    nifti(tmp_path / "scans" / "bad.nii", phantom)
    nifti(tmp_path / "scans" / "good.nii", phantom[::-1])
    usual, calls = getattr(series_slices, name), []

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("odd")
        return usual(*arguments, **options)

    monkeypatch.setattr(series_slices, name, broken)
    manifest = prepare(
        tmp_path / "scans", tmp_path / "out", Recipe.of(size=32), ScanRules(modality="MR", region="brain")
    )
    assert manifest.slices
    assert [(one["path"], "ZeroDivisionError" in one["reason"]) for one in manifest.refused] == [("bad.nii", True)]
