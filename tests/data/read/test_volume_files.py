"""NIfTI, NRRD and MetaImage: stored axis order does not matter; label maps and damaged files do not pass."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medvar_engine.data.read.label_maps import looks_like_labels
from medvar_engine.data.read.scans import find_series
from medvar_engine.data.read.volume import Volume
from medvar_engine.data.read.volume_files import is_label_name, stem
from medvar_engine.errors import MedvarError


def read(path: Path, **options: Any) -> list[Volume]:
    """The volumes of one file, whether its header is refused when it is found or its voxels when they are loaded."""
    found, refusals = find_series(path)
    for refusal in refusals:
        raise MedvarError(str(refusal))
    return [volume for one in found for volume in one.load(**options)]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "ASL", "SRP", "IPL"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_stored_axis_order_does_not_matter(
    tmp_path: Path, phantom: Any, affine: Any, nifti: Any, codes: str, suffix: str
) -> None:
    """Breaks for everybody whose files are not stored as ours are: mirrored or turned slices."""
    path = nifti(tmp_path / "scan.nii.gz", phantom, codes=codes)
    if suffix != ".nii.gz":
        image = sitk.ReadImage(str(path))
        path = tmp_path / f"scan{suffix}"
        sitk.WriteImage(image, str(path), True)
    (volume,) = read(path)
    np.testing.assert_array_equal(volume.array, phantom)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    assert volume.spacing == pytest.approx((1.5, 1.25, 2.0), abs=1e-5)


def test_oblique_scan_keeps_its_voxels(tmp_path: Path, phantom: Any, affine: Any, nifti: Any) -> None:
    """Breaks for tilted acquisitions: nothing may be resampled, and the spacing is along the tilted axes."""
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    (volume,) = read(nifti(tmp_path / "scan.nii", phantom, turn @ affine, codes="LPS"))
    np.testing.assert_array_equal(volume.array, phantom)
    assert volume.spacing == pytest.approx((1.5, 1.25, 2.0), abs=1e-5)


def test_four_dimensions_give_named_phases(tmp_path: Path, phantom: Any, affine: Any) -> None:
    """Breaks for functional and diffusion MR: time points are scans of their own."""
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.stack([phantom + t for t in range(10)], axis=-1), affine), path)
    volumes = read(path)
    assert [volume.phase for volume in volumes] == ["phase 1 of 10", "phase 9 of 10"]
    np.testing.assert_array_equal(volumes[1].array, phantom + 8)


@pytest.mark.parametrize("slope", [None, 2.5])
def test_packed_in_several_parts(tmp_path: Path, phantom: Any, affine: Any, slope: float | None) -> None:
    """Breaks for files that bgzip or pigz has packed, which are several gzip streams, and for scaled voxels."""
    image = nib.Nifti1Image(phantom, affine)
    image.header.set_slope_inter(slope, slope and -3)
    content = image.to_bytes()
    middle = len(content) // 3
    parts = [content[:middle], b"", content[middle:]]
    (tmp_path / "scan.nii.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    (volume,) = read(tmp_path / "scan.nii.gz")
    expected = np.asanyarray(nib.load(tmp_path / "scan.nii.gz").dataobj)
    np.testing.assert_array_equal(volume.array, expected.astype(np.float32))


def test_files_damaged_in_the_middle_are_refused(tmp_path: Path, phantom: Any, affine: Any) -> None:
    """Breaks for bad disks: voxels that are not what was packed."""
    content = bytearray(gzip.compress(nib.Nifti1Image(phantom, affine).to_bytes(), 0))
    content[len(content) // 2] ^= 255  # stored, not packed: only the checksum tells
    (tmp_path / "scan.nii.gz").write_bytes(content)
    with pytest.raises(MedvarError, match="truncated"):
        read(tmp_path / "scan.nii.gz")


def test_lengths_in_metres(tmp_path: Path, phantom: Any, affine: Any) -> None:
    """Breaks for NIfTI in metres or micrometres: slices a thousand times too small."""
    image = nib.Nifti1Image(phantom, np.diag([1e-3, 1e-3, 1e-3, 1]) @ affine)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "scan.nii")
    assert read(tmp_path / "scan.nii")[0].spacing == pytest.approx((1.5, 1.25, 2.0), rel=1e-5)


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_implausible_units_are_refused(tmp_path: Path, phantom: Any, affine: Any, unit: str) -> None:
    """Breaks for files of which only the unit is wrong: a head of two hundred metres, or of two tenths of a mm."""
    image = nib.Nifti1Image(phantom, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "scan.nii")
    with pytest.raises(MedvarError, match="mm are probably meant"):
        read(tmp_path / "scan.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("keep", [0.001, 0.6])
def test_truncated_file_names_itself(tmp_path: Path, phantom: Any, affine: Any, suffix: str, keep: float) -> None:
    """Breaks for broken downloads: half a patient must not be read as a whole one."""
    path = tmp_path / f"scan{suffix}"
    if suffix.startswith(".nii"):
        nib.save(nib.Nifti1Image(phantom, affine), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(phantom), str(path), suffix == ".nrrd")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(MedvarError, match=f"scan{suffix}.*truncated"):
        read(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda a, m: nib.Nifti1Image(np.where(a > 500, np.nan, a).astype(np.float32), m), "not finite"),
        (lambda a, m: nib.Nifti1Image(a[..., 0], m), "3 dimensions"),
        (lambda a, m: nib.Nifti1Image(a.astype(np.complex64), m), "complex"),
        (lambda a, m: nib.Nifti1Image(a, None), "lacks the orientation"),
        (lambda a, m: nib.Nifti1Image((a // 300).astype(np.uint8), m), "label map"),
    ],
)
def test_files_that_are_not_scans_are_refused(
    tmp_path: Path, phantom: Any, affine: Any, make: Any, reason: str
) -> None:
    """Breaks for folders with derived files: they must not be trained on, and must be named."""
    nib.save(make(phantom, affine), tmp_path / "scan.nii.gz")
    with pytest.raises(MedvarError, match=reason):
        read(tmp_path / "scan.nii.gz")


def test_label_intent_is_refused(tmp_path: Path, phantom: Any, affine: Any) -> None:
    """Breaks for segmentations whose header says so."""
    image = nib.Nifti1Image(phantom, affine)
    image.header.set_intent("label")
    nib.save(image, tmp_path / "scan.nii.gz")
    with pytest.raises(MedvarError, match="label map"):
        read(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("name", ["a_labels.nii.gz", "a-seg.nrrd", "a_dseg.nii", "mask.mha", "a_Segmentation.nii.gz"])
def test_label_names(name: str) -> None:
    """Breaks for segmentation data sets: their label maps lie beside the images."""
    assert is_label_name(Path(name))


@pytest.mark.parametrize("name", ["masked_t1.nii.gz", "segal_t2.nii.gz", "sub-01_T1w.nii.gz", "skullmaskfree.nii"])
def test_image_names(name: str) -> None:
    """Breaks for people whose image names contain 'mask' or 'seg': their scans would be left out."""
    assert not is_label_name(Path(name))


def test_eight_bit_images_are_images() -> None:
    """Breaks for 8-bit MR with a black background: few whole numbers alone do not make a label map."""
    image = np.zeros((60, 60, 20), dtype=np.uint8)
    image[10:50, 10:50] = np.random.default_rng(0).normal(100, 15, (40, 40, 20))
    assert not looks_like_labels(image)
    assert looks_like_labels((image > 0).astype(np.uint8))
    assert not looks_like_labels(np.zeros((0, 3, 3)))


def test_stem() -> None:
    """Breaks for NIfTI without an index: the patient would be called ``scan.nii``."""
    assert [stem(Path(name)) for name in ("scan.nii.gz", "a.b.NRRD", "x.dcm")] == ["scan", "a.b", "x"]
