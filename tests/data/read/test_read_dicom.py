"""DICOM: the same patient comes back whatever the acquisition, and wrong geometry never does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import all_volumes


def only_refusal(folder: Path) -> str:
    volumes, refusals = all_volumes(folder)
    assert not volumes
    assert len(refusals) == 1
    return str(refusals[0])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_acquisition_plane_does_not_matter(tmp_path: Path, phantom: Any, affine: Any, series: Any, plane: str) -> None:
    """Breaks for everybody with sagittal MR: left and right, or head and feet, swapped in training data."""
    series(tmp_path, phantom, plane)
    (volume,), refusals = all_volumes(tmp_path)
    assert not refusals
    np.testing.assert_array_equal(volume.array, phantom)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    assert volume.spacing == pytest.approx((1.5, 1.25, 2.0))
    assert (volume.patient, volume.modality) == ("someone", "MR")


def test_hounsfield_units_per_slice(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for CT whose scanner scales every slice on its own: bands of wrong HU."""

    def change(number: int, dataset: Any) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = (1, -1024) if number % 2 else (2, -1000)

    series(tmp_path, phantom, modality="CT", change=change)
    (volume,), _ = all_volumes(tmp_path)
    np.testing.assert_array_equal(volume.array[..., 1::2], phantom[..., 1::2].astype(float) - 1024)
    np.testing.assert_array_equal(volume.array[..., ::2], phantom[..., ::2].astype(float) * 2 - 1000)


def test_ct_without_rescale_is_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for CT without HU: a window over raw numbers gives white images."""
    series(tmp_path, phantom, modality="CT")
    assert "not in HU" in only_refusal(tmp_path)


def test_monochrome1_mr_is_turned_by_its_bits(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for inverted MR: 12 bits turned over 16 leaves a constant of 61440 under everything."""
    series(tmp_path, 4095 - phantom, PhotometricInterpretation="MONOCHROME1")
    (volume,), _ = all_volumes(tmp_path)
    np.testing.assert_array_equal(volume.array, phantom)


def test_monochrome1_ct_keeps_hounsfield_units(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for CT stored for white-on-black display: HU are measured, the polarity is how to show them."""
    series(
        tmp_path,
        phantom,
        modality="CT",
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope=1,
        RescaleIntercept=-1024,
    )
    (volume,), _ = all_volumes(tmp_path)
    np.testing.assert_array_equal(volume.array, phantom.astype(float) - 1024)


def test_missing_slice_is_refused_with_its_place(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for interrupted transfers: the reformatted planes would be squeezed."""
    series(tmp_path, phantom, change=lambda number, dataset: number != 20)
    reason = only_refusal(tmp_path)
    assert "1 slices are missing" in reason
    assert "138.00 and 142.00 mm" in reason


def test_uneven_spacing_is_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for series whose slices drift: coronal images would be bent."""

    def change(number: int, dataset: Any) -> None:
        dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], 2.0 * number + 0.02 * number**1.5]

    series(tmp_path, phantom, change=change)
    assert "uneven" in only_refusal(tmp_path)


def test_gantry_tilt_is_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for tilted head CT: stacking the slices upright shears the head."""

    def change(number: int, dataset: Any) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + 0.5 * number, z]

    series(tmp_path, phantom, change=change)
    assert "tilt" in only_refusal(tmp_path)


def test_duplicates_are_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for folders in which a scan lies twice: slices would alternate with themselves."""
    series(tmp_path / "one", phantom)
    series(tmp_path / "two", phantom)
    assert "42 of 84 slices are duplicates" in only_refusal(tmp_path)


def test_two_slices_are_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for leftovers of a series: two far slices would pass for a volume with a huge spacing."""
    series(tmp_path, phantom, change=lambda number, dataset: number in (3, 30))
    assert "at least 3" in only_refusal(tmp_path)


def test_localizer_in_the_series_is_left_out(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for CT exports that keep the scout: one stray image would cost the whole scan, or corrupt it."""

    def scout(number: int, dataset: Any) -> bool:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        return number == 5

    series(tmp_path / "scan", phantom)
    series(tmp_path / "scout", phantom, "coronal", change=scout)
    (volume,), refusals = all_volumes(tmp_path)
    np.testing.assert_array_equal(volume.array, phantom)
    assert ["LOCALIZER" in str(one) for one in refusals] == [True]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation is YES"),
        ({"PhotometricInterpretation": "RGB"}, "PhotometricInterpretation is RGB"),
        ({"Modality": "US"}, "Modality is US"),
    ],
)
def test_images_that_may_name_a_patient_or_are_not_scans_are_refused(
    tmp_path: Path, phantom: Any, series: Any, tags: dict[str, str], reason: str
) -> None:
    """Breaks for the patient whose name is in the pixels, and for whoever trains on screenshots."""
    series(tmp_path, phantom, change=lambda number, dataset: number == 0, **tags)
    assert reason in only_refusal(tmp_path)


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "TriggerTime"])
def test_repeats_in_one_series_are_kept_apart(tmp_path: Path, phantom: Any, series: Any, keyword: str) -> None:
    """Breaks for multi-echo, dynamic and cine series under one UID: slices of different times would interleave."""
    series(tmp_path / "one", phantom, **{keyword: 1})
    series(tmp_path / "two", phantom + 50, **{keyword: 2})
    volumes, refusals = all_volumes(tmp_path, phase_step=1)
    assert not refusals
    assert len({(volume.series, volume.phase) for volume in volumes}) == 2
    assert [float(volume.array.mean()) for volume in volumes] == pytest.approx([phantom.mean(), phantom.mean() + 50])


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "FrameOfReferenceUID"])
def test_a_tag_that_numbers_slices_does_not_split(tmp_path: Path, phantom: Any, series: Any, keyword: str) -> None:
    """Breaks for LIDC-IDRI, whose de-identification gave every slice its own frame of reference."""
    series(tmp_path, phantom, change=lambda number, dataset: setattr(dataset, keyword, str(number + 1)))
    (volume,), refusals = all_volumes(tmp_path)
    assert not refusals
    np.testing.assert_array_equal(volume.array, phantom)


def test_one_uid_for_two_patients_is_two_series(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for badly de-identified archives: two patients in one volume, and in both splits."""
    series(tmp_path / "one", phantom, PatientID="a")
    series(tmp_path / "two", phantom, PatientID="b")
    volumes, refusals = all_volumes(tmp_path)
    assert not refusals
    assert [volume.patient for volume in volumes] == ["a", "b"]


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_file_names_itself(tmp_path: Path, phantom: Any, series: Any, keep: float) -> None:
    """Breaks for broken downloads: whoever has one must learn which file to fetch again."""
    paths = series(tmp_path, phantom)
    content = paths[10].read_bytes()
    paths[10].write_bytes(content[: int(keep * len(content))])
    volumes, refusals = all_volumes(tmp_path)
    assert not volumes
    assert paths[10].name in str(refusals[-1])


def test_header_cut_short_is_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for files cut inside their header: they must not stop the run."""
    paths = series(tmp_path, phantom)
    paths[0].write_bytes(paths[0].read_bytes()[:300])
    _, refusals = all_volumes(tmp_path)
    assert paths[0].name in str(refusals[0])


def test_damaged_dicom_is_refused_and_the_rest_is_read(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for folders with rubbish in them."""
    series(tmp_path / "scan", phantom)
    (tmp_path / "junk.dcm").write_bytes(b"not an image" * 30)
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "._scan.dcm").write_bytes(b"left by a file manager")
    volumes, refusals = all_volumes(tmp_path)
    assert len(volumes) == 1
    assert sorted(Path(one.path).name for one in refusals) == ["empty.dcm", "junk.dcm"]


def test_files_without_suffix_are_found(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for exports from a PACS, whose files are called IM0001."""
    for number, path in enumerate(series(tmp_path, phantom)):
        path.rename(tmp_path / f"IM{number:04d}")
    (volume,), refusals = all_volumes(tmp_path)
    assert not refusals
    np.testing.assert_array_equal(volume.array, phantom)


def test_malformed_value_is_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for files with a broken number in the header: a traceback would end a run of hours."""
    for path in series(tmp_path, phantom, modality="CT", RescaleSlope=1, RescaleIntercept=-1024):
        path.write_bytes(path.read_bytes().replace(b"-1024.0", b"-10x4.0"))
    assert "malformed" in only_refusal(tmp_path)


def test_enhanced_multiframe_and_phases(tmp_path: Path, phantom: Any, multiframe: Callable[..., Path]) -> None:
    """Breaks for cine MR: phases mixed into one volume beat at every slice."""
    multiframe(tmp_path / "cine.dcm", phantom, phases=3)
    volumes, refusals = all_volumes(tmp_path, phase_step=2)
    assert not refusals
    assert [volume.phase for volume in volumes] == ["phase 1 of 3", "phase 3 of 3"]
    for volume, offset in zip(volumes, (0, 2), strict=True):
        np.testing.assert_array_equal(volume.array, phantom + offset)
        assert volume.spacing == pytest.approx((1.5, 1.25, 2.0))


def test_multiframe_truncated(tmp_path: Path, phantom: Any, multiframe: Callable[..., Path]) -> None:
    """Breaks for broken downloads of large multi-frame files."""
    path = multiframe(tmp_path / "cine.dcm", phantom)
    path.write_bytes(path.read_bytes()[:-5000])
    assert "truncated" in only_refusal(tmp_path)


def test_multiframe_with_a_frame_missing(tmp_path: Path, phantom: Any, multiframe: Callable[..., Path]) -> None:
    """Breaks for multi-frame files with a hole, which must be refused as single slices are."""
    import pydicom

    path = multiframe(tmp_path / "scan.dcm", phantom)
    dataset = pydicom.dcmread(path)
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    frame = dataset.Rows * dataset.Columns * 2
    dataset.PixelData = dataset.PixelData[: 9 * frame] + dataset.PixelData[10 * frame :]
    dataset.PerFrameFunctionalGroupsSequence = groups[:9] + groups[10:]
    dataset.NumberOfFrames = len(groups) - 1
    dataset.save_as(path)
    assert "1 slices are missing" in only_refusal(tmp_path)


def test_cine_without_geometry_keeps_frames_as_stored(
    tmp_path: Path, phantom: Any, multiframe: Callable[..., Path]
) -> None:
    """Breaks for old cine loops: a plane invented for them would be a wrong label, a turn a wrong image."""
    from medvar_engine.data.harmonise.slicing import SliceRules, cut

    multiframe(tmp_path / "cine.dcm", phantom, geometry=False)
    (volume,), _ = all_volumes(tmp_path)
    assert not volume.oriented
    slabs = list(cut(volume, 0.0, SliceRules()))
    assert sum(len(one.images) for one in slabs) == phantom.shape[0]
    assert {one.plane for one in slabs} == {None}
    assert np.isnan([one.places for one in slabs]).all()
    assert slabs[0].spacing == (2.0, 1.25)
    np.testing.assert_array_equal(slabs[0].images[7], phantom[7, ::-1, ::-1].T)
