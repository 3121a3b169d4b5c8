"""Which DICOM images make one volume: places first, then what tells repeated places apart; only anatomy is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    LegacyConvertedEnhancedMRImageStorage,
    RLELossless,
)
from reading import item, place_group, volumes_and_reasons

from medvar_engine.data.read.dicom_kind import not_anatomy
from medvar_engine.data.read.scans import find_series
from medvar_engine.data.read.volume import Volume
from medvar_engine.data.survey import ScanRules


def only_volume(folder: Path, **options: Any) -> Volume:
    volumes, reasons = volumes_and_reasons(folder, **options)
    assert not reasons
    (volume,) = volumes
    return volume


def enhanced(image: Any, frames: Sequence[np.ndarray], groups: Sequence[dict[str, Any]], **tags: Any) -> FileDataset:
    """An enhanced MR of frames of one orientation; ``groups`` hold the functional groups of each, by their keyword."""
    one = image("MR", np.stack(frames), SOPClassUID=EnhancedMRImageStorage, NumberOfFrames=len(frames), **tags)
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.SharedFunctionalGroupsSequence = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=item(PixelSpacing=[1.25, 1.5]),
    )
    one.PerFrameFunctionalGroupsSequence = [item(**group)[0] for group in groups]
    return one


def axial(array: np.ndarray, number: int) -> np.ndarray:
    return array[::-1, ::-1, number].T


# Places that do not repeat


@pytest.mark.parametrize(
    "number",
    [lambda i: 1 + i % 2, lambda i: 1 + i // 4, lambda i: 19 if i in (4, 5, 11) else 23, lambda i: i % 3],
    ids=["interleaved", "stepped", "stray", "three packages"],
)
@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "TriggerTime"])
def test_places_that_do_not_repeat_are_one_volume(
    tmp_path: Path, phantom: Any, series: Any, keyword: str, number: Callable[[int], int]
) -> None:
    """Breaks for interleaved MR and sequential CT: scans with a spacing that the scanner never made."""
    series(tmp_path, phantom, change=lambda i, one: setattr(one, keyword, number(i)))
    np.testing.assert_array_equal(only_volume(tmp_path).array, phantom)


def test_packages_with_a_missing_slice_are_not_divided(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for interleaved scans with a hole: each package alone looks even, twice as thick as it is."""

    def change(number: int, one: Any) -> bool:
        one.AcquisitionNumber = 1 + number % 2
        return number != 40  # the last but one of all, and the last of its package

    series(tmp_path, phantom, change=change)
    volumes, (reason,) = volumes_and_reasons(tmp_path)
    assert not volumes
    assert "1 slices are missing" in reason


def test_two_stations_of_one_series_are_two_scans(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for chest and pelvis in one series: both would be refused for the gap between them."""

    def change(number: int, one: Any) -> bool:
        one.AcquisitionNumber = 1 if number < 18 else 2
        return not 15 <= number < 20

    series(tmp_path, phantom, change=change)
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    assert [one.array.shape[2] for one in volumes] == [15, 22]


# Places that repeat


def test_time_points_in_files_are_phases(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for dynamic scans with a file for each slice: ten scans instead of every eighth phase of one."""
    for phase in range(10):
        series(tmp_path / str(phase), phantom + phase, TemporalPositionIdentifier=phase + 1)
    (one,), refusals = find_series(tmp_path)
    assert not refusals
    volumes = list(one.load(phase_step=8))
    assert [volume.phase for volume in volumes] == ["phase 1 of 10", "phase 9 of 10"]
    np.testing.assert_array_equal(volumes[1].array, phantom + 8)
    assert one.remarks() == (
        "2 of 10 volumes are used (--phase-step); its images are distinguished by temporal position",
    )


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("TriggerTime", lambda phase, i: 40 * phase + 0.1 * (i % 5)),
        ("AcquisitionTime", lambda phase, i: f"{101500 + 10 * phase}.{i:02d}"),
        ("InstanceNumber", lambda phase, i: 1 + phase * 42 + i),
        ("InstanceNumber", lambda phase, i: 1 + phase + i * 6),
        ("AcquisitionNumber", lambda phase, i: 1 + phase),
        ("AcquisitionNumber", lambda phase, i: 1 + 2 * phase + i % 2),
    ],
)
def test_counters_of_the_scanner_distinguish_time_points(
    tmp_path: Path, phantom: Any, series: Any, keyword: str, value: Callable[[int, int], Any]
) -> None:
    """Breaks for cine and dynamic MR whose times differ from slice to slice, or that have no time at all."""
    for phase in range(6):
        series(
            tmp_path / str(phase),
            phantom + phase,
            change=lambda i, one, phase=phase: setattr(one, keyword, value(phase, i)),
        )
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=3)
    assert not reasons
    assert [one.phase for one in volumes] == ["phase 1 of 6", "phase 4 of 6"]
    for one, offset in zip(volumes, (0, 3), strict=True):
        np.testing.assert_array_equal(one.array, phantom + offset)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoNumbers", (1, 2)),
        ("EchoTime", (2.4, 4.8)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M", "NORM"], ["ORIGINAL", "PRIMARY", "M", "ND"])),
        ("AcquisitionNumber", (1, 2)),
    ],
)
def test_contrasts_are_separate_scans(
    tmp_path: Path, phantom: Any, series: Any, keyword: str, values: tuple[Any, Any]
) -> None:
    """Breaks for two echoes, or before and after contrast medium: --phase-step must not pass them by."""
    for number, value in enumerate(values):
        series(tmp_path / str(number), phantom + number, **{keyword: value})
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=8)
    assert not reasons
    assert [float(one.array.mean() - phantom.mean()) for one in volumes] == pytest.approx([0, 1], abs=1e-3)


@pytest.mark.parametrize("counted", ["TriggerTime", "AcquisitionTime"])
@pytest.mark.parametrize("shared", [False, True])
def test_heartbeats_of_different_length(tmp_path: Path, phantom: Any, series: Any, counted: str, shared: bool) -> None:
    """Breaks for cines of which each slice has its own heartbeats: the same phases, at other times after each beat."""
    for phase in range(5):

        def change(number: int, one: Any, phase: int = phase) -> None:
            beat = (700.0, 900.0)[number % 2] if shared else 700.0 + 13 * (number * 7 % 11)
            time = phase * beat / 5
            setattr(one, counted, f"{time:.1f}" if counted == "TriggerTime" else f"1010{10 + time / 1000:07.4f}")
            one.InstanceNumber = None

        series(tmp_path / str(9 - phase), phantom + phase, change=change)
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=1)
    assert not reasons
    for phase, volume in enumerate(volumes):
        np.testing.assert_array_equal(volume.array, phantom + phase)
    (one,), _ = find_series(tmp_path)
    assert "(in order at each position)" in one.remarks()[0]
    assert one.remarks()[0].startswith("1 of 5 volumes")


def standard(one: Any, b_value: float, direction: Sequence[float]) -> None:
    one.DiffusionBValue, one.DiffusionGradientOrientation = b_value, list(direction)


def siemens(one: Any, b_value: float, direction: Sequence[float]) -> None:
    block = one.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", str(int(b_value)))
    if b_value:
        block.add_new(0x0E, "FD", list(direction))


def ge(one: Any, b_value: float, direction: Sequence[float]) -> None:
    one.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [int(b_value) + 10**9, 8, 0, 0])
    block = one.private_block(0x0019, "GEMS_ACQU_01", create=True)
    # GE's block of these elements starts at 0xBB.
    for number, value in enumerate(direction):
        block.add_new(0xBB + number, "DS", str(value))


def philips(one: Any, b_value: float, direction: Sequence[float]) -> None:
    one.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", b_value)
    block = one.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    for number, value in enumerate(direction):
        block.add_new(0xB0 + number, "FL", value)


def united_imaging(one: Any, b_value: float, direction: Sequence[float]) -> None:
    block = one.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x09, "FD", b_value)
    block.add_new(0x37, "FD", list(direction))


@pytest.mark.parametrize("vendor", [standard, siemens, ge, philips, united_imaging])
@pytest.mark.parametrize("implicit", [False, True])
def test_diffusion_volumes(tmp_path: Path, phantom: Any, series: Any, vendor: Any, implicit: bool) -> None:
    """Breaks for diffusion series: all directions lie at the same places, and are no duplicates of each other."""
    shown = [(0, (0, 0, 0)), (1000, (1, 0, 0)), (1000, (0, 1, 0)), (1000, (0, 0, 1))]
    for number, (b_value, direction) in enumerate(shown):
        series(
            tmp_path / str(number),
            phantom + number,
            change=lambda i, one, b_value=b_value, direction=direction: vendor(one, float(b_value), direction),
        )
    if implicit:  # private elements come back as bytes
        for path in tmp_path.rglob("*.dcm"):
            one = pydicom.dcmread(path)
            one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            one.save_as(path, implicit_vr=True, little_endian=True)
    volume = only_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, phantom)
    assert volume.phase == "b 0, volume 1 of 4"
    volumes, reasons = volumes_and_reasons(tmp_path, diffusion="all")
    assert not reasons
    assert sorted(float(one.array.mean() - phantom.mean()) for one in volumes) == pytest.approx([0, 1, 2, 3], abs=1e-2)
    (one,), _ = find_series(tmp_path)
    assert "1 of 4 diffusion volumes" in one.remarks()[0]
    assert "b-value and direction" in one.remarks()[0]


@pytest.mark.parametrize("slice_by_slice", [False, True])
def test_directions_come_as_they_were_acquired(tmp_path: Path, phantom: Any, series: Any, slice_by_slice: bool) -> None:
    """Breaks for whoever lays volumes beside the scanner's table of gradients: they were sorted by their numbers."""
    shown = [(1000, (0, 0, 1)), (0, (0, 0, 0)), (1000, (1, 0, 0)), (500, (0, 1, 0)), (1000, (0, 0, 1)), (0, (0, 0, 0))]
    for turn, (b_value, direction) in enumerate(shown):
        series(
            tmp_path / f"{9 - turn}",  # names say nothing of the order
            phantom + turn,
            change=lambda i, one, turn=turn: setattr(
                one, "InstanceNumber", 1 + (i * len(shown) + turn if slice_by_slice else turn * 42 + i)
            ),
            DiffusionBValue=float(b_value),
            DiffusionGradientOrientation=[float(number) for number in direction],
        )
    volumes, reasons = volumes_and_reasons(tmp_path, diffusion="all")
    assert not reasons
    assert [round(float(one.array.mean() - phantom.mean())) for one in volumes] == [1, 5, 3, 0, 2, 4]
    assert [one.phase for one in volumes][:3] == [f"b {b}, volume {n} of 6" for n, b in enumerate((0, 0, 500), 1)]


@pytest.mark.parametrize("block", [0x11, 0x13])
def test_private_elements_in_any_block(tmp_path: Path, phantom: Any, series: Any, block: int) -> None:
    """Breaks for files that another program has added private elements to: the scanner's block is not the first."""

    def change(i: int, one: FileDataset, b_value: int) -> None:
        one.add_new(0x00430010, "LO", "SOMEBODY ELSE")
        one.add_new(0x00430000 | block, "LO", "GEMS_PARM_01")
        one.add_new(0x00430039 | block << 8, "IS", [b_value, 8, 0, 0])

    for number, b_value in enumerate((0, 10**9 + 800)):
        series(tmp_path / str(number), phantom + number, change=lambda i, one, b=b_value: change(i, one, b))
    volumes, reasons = volumes_and_reasons(tmp_path, diffusion="all")
    assert not reasons
    assert [one.phase for one in volumes] == ["b 0, volume 1 of 2", "b 800, volume 2 of 2"]


def test_repeated_b0_volumes_are_apart(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for the usual diffusion scan, which has b = 0 more than once."""
    for number, b_value in enumerate((0, 800, 0)):
        series(
            tmp_path / str(number),
            phantom + number,
            change=lambda i, one, number=number: setattr(one, "InstanceNumber", number * 42 + i + 1),
            DiffusionBValue=float(b_value),
        )
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=1)
    assert not reasons
    assert [one.phase for one in volumes] == ["b 0, volume 1 of 3", "b 0, volume 2 of 3"]


def test_the_same_image_in_two_files_counts_once(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for exports that hold a study twice."""
    for path in series(tmp_path / "one", phantom):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / path.name).write_bytes(path.read_bytes())
    np.testing.assert_array_equal(only_volume(tmp_path).array, phantom)


def test_other_pixels_under_one_uid_are_refused(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for files that were altered: nobody can say which is the scan."""
    (tmp_path / "two").mkdir()
    for path in series(tmp_path / "one", phantom):
        one = pydicom.dcmread(path)
        one.PixelData = (one.pixel_array + 1).astype("<u2").tobytes()
        one.save_as(tmp_path / "two" / path.name)
    volumes, (reason,) = volumes_and_reasons(tmp_path)
    assert not volumes
    assert "42 of 84 slices lie at a position that another slice has and show something else" in reason


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("syntax", [None, JPEGLSLossless])
@pytest.mark.parametrize("first", ["a", "c"])
def test_a_damaged_copy_is_refused_and_the_other_read(
    tmp_path: Path, phantom: Any, series: Any, syntax: str | None, keep: float, first: str
) -> None:
    """Breaks for exports that hold a study twice, one of them cut short: the whole one is read, whichever is found."""
    (tmp_path / first).mkdir()
    cut = 0
    for number, path in enumerate(series(tmp_path / "b", phantom)):
        if syntax is not None:
            one = pydicom.dcmread(path)
            one.compress(syntax, generate_instance_uid=False)
            one.save_as(path)
        content = path.read_bytes()
        short = number % 4 == 0
        cut += short
        (tmp_path / first / path.name).write_bytes(content[: int(len(content) * keep)] if short else content)
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert len(reasons) == cut
    assert all(f"/{first}/" in one and ("copy" in one or "truncated" in one) for one in reasons)
    np.testing.assert_array_equal(volumes[0].array, phantom)


def test_an_image_that_is_damaged_in_all_copies_refuses_its_series(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for damaged disks: a scan must not be read without the slice that nobody has whole."""
    paths = series(tmp_path / "one", phantom)
    (tmp_path / "two").mkdir()
    for path in paths:
        content = path.read_bytes()
        if path.name.endswith("-41.dcm"):  # the last slice: without it the others would make a scan
            content = content[:-100]
            path.write_bytes(content)
        (tmp_path / "two" / path.name).write_bytes(content)
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not volumes
    assert any("-41.dcm" in one and "truncated" in one for one in reasons)


def test_equal_copies_are_not_decoded_for_comparison(
    tmp_path: Path, phantom: Any, series: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks for large archives: to decode each image once more takes as long as to read it."""
    for path in series(tmp_path / "one", phantom):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("medvar_engine.data.read.dicom_decode.PixelFile.frames", None)
    (found,), refusals = find_series(tmp_path)
    assert not refusals
    assert len(found.paths) == 42


# What a frame shows


@pytest.mark.parametrize(
    ("types", "component", "units", "said"),
    [
        (["ORIGINAL", "PRIMARY", "P", "ND"], None, "", "phase"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], None, "", "phase"),
        (["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"], None, "", "real part"),
        (["ORIGINAL", "PRIMARY", "I", "IR"], None, "", "imaginary part"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"], None, "", "diffusion coefficient"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "FA"], None, "", "diffusion tensor"),
        (["DERIVED", "PRIMARY", "PERFUSION", "RELCBF"], None, "", "perfusion"),
        (["DERIVED", "PRIMARY", "T1 MAP", "T1"], None, "", "relaxation"),
        (["DERIVED", "SECONDARY", "OTHER", "T2_STAR_MAP"], None, "", "relaxation"),
        (["DERIVED", "PRIMARY", "T_MAP"], None, "", "statistic"),
        (["ORIGINAL", "PRIMARY", "T1", "FIELD_MAP"], None, "", "field map"),
        (["DERIVED", "SECONDARY", "SCREEN SAVE"], None, "", "screen capture"),
        (["ORIGINAL", "PRIMARY", "OTHER"], "PHASE", "", "phase"),
        (["ORIGINAL", "PRIMARY", "OTHER"], None, "Hz", "Hz"),
        (["DERIVED", "PRIMARY", "OTHER"], None, "10^-6 mm2/s", "mm2/s"),
    ],
)
def test_images_other_than_magnitude_are_refused_by_name(
    types: list[str], component: Any, units: str, said: str
) -> None:
    """Breaks for whoever trains on phase images and maps under the name of MR."""
    assert said in str(not_anatomy(types, component, [units]))


@pytest.mark.parametrize(
    "types",
    [
        ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"],
        ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"],
        ["ORIGINAL", "PRIMARY", "M_IR", "M", "IR"],
        ["ORIGINAL", "PRIMARY", "T1", "NONE"],
        ["ORIGINAL", "PRIMARY", "T2_STAR", "NONE"],
        ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "NORM"],
        ["DERIVED", "SECONDARY", "MPR"],
        ["ORIGINAL", "PRIMARY", "OTHER"],
        ["ORIGINAL", "PRIMARY"],
        [],
    ],
)
def test_magnitude_is_anatomy(types: list[str]) -> None:
    """Breaks for everybody, when the ordinary types of scanners are taken for maps."""
    assert not_anatomy(types, "MAGNITUDE", ["US", "normalized"]) is None


@pytest.mark.parametrize("kind", ["MAT_SPECIFIC", "MAT_FRACTIONAL", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY"])
def test_maps_of_material_do_not_shadow_the_ct(tmp_path: Path, phantom: Any, series: Any, kind: str) -> None:
    """Breaks for CT of two energies: only the virtual monoenergetic images are in HU."""
    hu = {"modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
    series(tmp_path / "a", phantom + 1, ImageType=["DERIVED", "PRIMARY", "AXIAL", kind], **hu)
    series(tmp_path / "b", phantom, ImageType=["DERIVED", "PRIMARY", "AXIAL", "VMI"], **hu)
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert [float(one.array.max()) for one in volumes] == [phantom.max() - 1024.0]
    assert len(reasons) == 42
    assert "material" in reasons[0]


@pytest.mark.parametrize(
    ("sop_class", "said"),
    [
        ("1.2.840.10008.5.1.4.1.1.30", "a parametric map"),
        ("1.2.840.10008.5.1.4.1.1.66.4", "a segmentation"),
        ("1.2.840.10008.5.1.4.1.1.66.7", "a label map"),
        ("1.2.840.10008.5.1.4.1.1.4.2", "spectra"),
        ("1.2.840.10008.5.1.4.1.1.66", "raw data"),
    ],
)
def test_objects_that_are_no_images_are_named(
    tmp_path: Path, phantom: Any, series: Any, sop_class: str, said: str
) -> None:
    """Breaks for derived objects beside a scan: they were called truncated, for want of pixels."""
    series(tmp_path, phantom, change=lambda i, one: i < 3, SOPClassUID=sop_class, BitsAllocated=32)
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not volumes
    assert all(f"SOPClassUID says {said}" in one for one in reasons)


@pytest.mark.parametrize("labels", [2, 60])
def test_a_label_map_in_dicom_is_refused(tmp_path: Path, phantom: Any, series: Any, labels: int) -> None:
    """Breaks for masks that a program has written as MR, with the tags of the scan that they belong to."""
    series(tmp_path, (phantom - 100) // 200 % labels * 50, change=lambda i, one: True)
    volumes, (reason,) = volumes_and_reasons(tmp_path)
    assert not volumes
    assert "label map" in reason


def test_a_field_map_does_not_shadow_the_magnitude(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for field mapping in one enhanced file: noise was read in place of the head."""
    frames, groups = [], []
    for kind, offset, first in (("M", 0, 2), ("FIELD_MAP", 7, 1)):
        for number in range(12):
            frames.append(axial(phantom, number) + offset)
            content = {"DimensionIndexValues": [first, number + 1]}
            types = {"FrameType": ["ORIGINAL", "PRIMARY", "T1", kind]}
            groups.append(place_group(number) | {"FrameContentSequence": content, "MRImageFrameTypeSequence": types})
    enhanced(dicom_image, frames, groups, ImageType=["ORIGINAL", "PRIMARY", "T1", "MIXED"]).save_as(tmp_path / "a.dcm")
    (volume,), (reason,) = volumes_and_reasons(tmp_path)
    np.testing.assert_array_equal(volume.array, phantom[..., :12])
    assert "12 of 24 frames" in reason
    assert "field map" in reason


def test_phase_images_do_not_shadow_the_magnitude(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for phase contrast and field mapping with a file for each image, of one series."""
    series(tmp_path / "m", phantom, ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    series(tmp_path / "p", phantom + 1, ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    (volume,), reasons = volumes_and_reasons(tmp_path)
    np.testing.assert_array_equal(volume.array, phantom)
    assert len(reasons) == 42
    assert "the phase of the signal" in reasons[0]


def test_localizer_without_the_word(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for planning images whose ImageType says nothing: three planes of a few thick slices are no scan."""
    for plane in ("axial", "coronal", "sagittal"):
        series(tmp_path / plane, phantom, plane, change=lambda i, one: i in (5, 15, 25), SliceThickness=8)
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not volumes
    assert len(reasons) == 9
    assert all("a localizer" in one for one in reasons)


# Patients


@pytest.mark.parametrize(("patient", "remarked"), [("ANONYMOUS", True), ("0000", True), ("someone", False)])
def test_a_placeholder_id_gives_a_remark(
    tmp_path: Path, phantom: Any, series: Any, patient: str, remarked: bool
) -> None:
    """Breaks for archives in which everybody has the same id: they would be one patient without a word."""
    from medvar_engine.data.harmonise.slice_recipe import Recipe
    from medvar_engine.data.prepare import prepare

    series(tmp_path / "scans", phantom, PatientID=patient)
    manifest = prepare(tmp_path / "scans", tmp_path / "out", Recipe.of(size=32), ScanRules(region="brain"))
    assert any("may stand for several patients" in one for one in manifest.remarks) == remarked


# Enhanced files


def test_enhanced_files_of_one_frame_each(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for enhanced objects that archives split into frames: their geometry is in functional groups alone."""
    for number in range(12):
        group = place_group(number) | {
            "PixelValueTransformationSequence": {"RescaleSlope": 2, "RescaleIntercept": number}
        }
        one = enhanced(dicom_image, [axial(phantom, number)], [group], InstanceNumber=number + 1)
        one.save_as(tmp_path / f"{number}.dcm")
    np.testing.assert_array_equal(only_volume(tmp_path).array, phantom[..., :12] * 2 + np.arange(12))


def test_enhanced_files_of_one_volume_each(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for scans over time with an enhanced file for each time point."""
    for phase in range(9):
        frames = [axial(phantom, number) + phase for number in range(12)]
        one = enhanced(dicom_image, frames, [place_group(number) for number in range(12)], InstanceNumber=phase + 1)
        one.save_as(tmp_path / f"{phase}.dcm")
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    assert [one.phase for one in volumes] == ["phase 1 of 9", "phase 9 of 9"]
    np.testing.assert_array_equal(volumes[1].array, phantom[..., :12] + 8)


def test_legacy_converted_without_dimensions(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for converted classic series: no dimensions, and echo times among the unassigned attributes."""
    frames, groups = [], []
    for number in range(12):
        for echo in (0, 1):
            frames.append(axial(phantom, number) + echo)
            unassigned = {"EchoTime": 2.5 + 2.5 * echo}
            groups.append(place_group(number) | {"UnassignedPerFrameConvertedAttributesSequence": unassigned})
    one = enhanced(dicom_image, frames, groups)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = LegacyConvertedEnhancedMRImageStorage
    one.save_as(tmp_path / "a.dcm")
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    for volume, offset in zip(volumes, (0, 1), strict=True):
        np.testing.assert_array_equal(volume.array, phantom[..., :12] + offset)


def test_enhanced_files_without_functional_groups_are_refused(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for damaged enhanced files: frames without a place would pass for 2-D images of no plane."""
    one = enhanced(dicom_image, [axial(phantom, number) for number in range(12)], [place_group(n) for n in range(12)])
    del one.PerFrameFunctionalGroupsSequence, one.SharedFunctionalGroupsSequence
    one.save_as(tmp_path / "a.dcm")
    volumes, (reason,) = volumes_and_reasons(tmp_path)
    assert not volumes
    assert "functional groups are missing" in reason


# Any series


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(4, 9), st.integers(4, 9), st.integers(3, 6)),
    turn=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3),
    phases=st.integers(1, 4),
    counted=st.sampled_from(["temporal position", "number", "time", "trigger", "b-value", "direction", "echo"]),
    packages=st.integers(1, 3),
    padding=st.booleans(),
    scales=st.sampled_from(["none", "one", "each"]),
    unused=st.booleans(),
    turned=st.booleans(),
    syntax=st.sampled_from([None, RLELossless, JPEG2000Lossless]),  # JPEG-LS cannot be written of small noise
    as_enhanced=st.sampled_from(["classic", "one file", "a file a volume", "a file a frame"]),
    seed=st.integers(0, 2**16),
)
def test_any_series_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    dicom_image: Any,
    shape: tuple[int, int, int],
    turn: tuple[float, ...],
    spacing: tuple[float, float, float],
    phases: int,
    counted: str,
    packages: int,
    padding: bool,
    scales: str,
    unused: bool,
    turned: bool,
    syntax: str | None,
    as_enhanced: str,
    seed: int,
) -> None:
    """Breaks for whoever's scanner orders, numbers, scales and packs its images in a way that nobody thought of."""
    from scipy.spatial.transform import Rotation

    folder = tmp_path_factory.mktemp("any")
    generator = np.random.default_rng(seed)
    if syntax == JPEG2000Lossless:  # its encoder takes no smaller images
        shape = (shape[0] + 28, shape[1] + 28, shape[2])
    values = generator.integers(1, 3000, (phases, *shape))
    values[:, 2, 2, 1] = 3001 + np.arange(phases)  # by which volumes are known
    axes = Rotation.from_euler("xyz", turn).as_matrix()
    images = []
    for phase in range(phases):
        for number in range(shape[2]):
            frame = values[phase, :, :, number].T.copy()
            if padding:
                frame[0, 0] = 4000
            if unused:
                frame |= generator.integers(0, 16, frame.shape) << 12
            corner, orientation = axes[:, 2] * spacing[2] * number, np.concatenate([axes[:, 0], axes[:, 1]])
            if turned and number % 2:
                frame, orientation = frame[::-1, ::-1], -orientation
                corner = corner + axes[:, :2] @ [spacing[0] * (shape[0] - 1), spacing[1] * (shape[1] - 1)]
            position = corner.tolist()
            classic, groups = _told_apart(counted, phase, number, shape[2])
            slope = {"none": None, "one": 2, "each": 1 + int(generator.integers(0, 3))}[scales]
            if slope is not None:
                classic |= {"RescaleSlope": slope, "RescaleIntercept": number}
                groups["PixelValueTransformationSequence"] = {"RescaleSlope": slope, "RescaleIntercept": number}
                values[phase, :, :, number] = values[phase, :, :, number] * slope + number
            classic |= {"ImagePositionPatient": position, "ImageOrientationPatient": orientation.tolist()}
            classic |= {"AcquisitionNumber": 1 + number % packages}
            groups["PlanePositionSequence"] = {"ImagePositionPatient": position}
            groups["PlaneOrientationSequence"] = {"ImageOrientationPatient": orientation.tolist()}
            groups.setdefault("FrameContentSequence", {})["FrameAcquisitionNumber"] = 1 + number % packages
            images.append((phase, frame, classic, groups))
    images = [images[i] for i in generator.permutation(len(images))]
    about: dict[str, Any] = {"PixelPaddingValue": 4000} if padding else {}
    sides = [spacing[1], spacing[0]]
    parts: dict[int, list[Any]] = {}
    for at, image in enumerate(images):
        parts.setdefault({"one file": 0, "a file a volume": image[0]}.get(as_enhanced, at), []).append(image)
    for name, part in parts.items():
        if as_enhanced == "classic":
            (_, frame, classic, _), *_ = part
            one = dicom_image("MR", frame, **classic, **about)
            one.PixelSpacing = sides
        else:
            one = enhanced(dicom_image, [image[1] for image in part], [image[3] for image in part], **about)
            one.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = sides
            one.InstanceNumber = min(image[2]["InstanceNumber"] for image in part)
        if syntax is not None:
            one.BitsStored, one.HighBit = 16, 15  # or the encoder would refuse what lies in unused bits
            one.compress(syntax, generate_instance_uid=False)
            one.BitsStored, one.HighBit = 12, 11
        one.save_as(folder / f"{name}.dcm")
    volumes, reasons = volumes_and_reasons(folder, phase_step=1, diffusion="all")
    assert not reasons
    assert len(volumes) == phases
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    world = (index * spacing) @ axes.T * [-1, -1, 1]
    found = []
    for volume in volumes:
        # Every voxel of the volume, at its place in the patient, has the value that was written there.
        back = np.linalg.inv(volume.affine)
        at = np.rint(world @ back[:3, :3].T + back[:3, 3]).astype(int)
        seen = volume.array[tuple(at.T)].reshape(shape)
        (phase,) = np.flatnonzero(values[:, 2, 2, 1] == seen[2, 2, 1])
        found.append(int(phase))
        expected = values[phase].copy()
        if padding:
            expected[0, 0] = np.delete(expected.reshape(-1, shape[2]), 0, axis=0).min()
        np.testing.assert_array_equal(seen, expected)
    assert sorted(found) == list(range(phases))
    if counted != "echo":  # echoes are scans of their own, which have no order
        assert found == list(range(phases))


def _told_apart(counted: str, phase: int, number: int, slices: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What tells an image of a volume from those of others: as attributes, and as functional groups."""
    numbered: dict[str, Any] = {"InstanceNumber": 1 + phase * slices + number}
    if counted == "number":
        return numbered, {"FrameContentSequence": {"DimensionIndexValues": [phase + 1, number + 1]}}
    if counted == "temporal position":
        content = {"TemporalPositionIndex": phase + 1}
        return numbered | {"TemporalPositionIdentifier": phase + 1}, {"FrameContentSequence": content}
    if counted == "time":
        content = {"FrameAcquisitionDateTime": f"20200101{101500 + phase}.{number:03d}"}
        return numbered | {"AcquisitionTime": f"{101500 + phase}.{number:03d}"}, {"FrameContentSequence": content}
    if counted == "trigger":
        delay = {"NominalCardiacTriggerDelayTime": 40.0 * phase + 0.3 * number}
        return numbered | {"TriggerTime": 40.0 * phase + 0.3 * number}, {"CardiacSynchronizationSequence": delay}
    if counted == "echo":
        echo = {"EffectiveEchoTime": 2.5 + 2.5 * phase}
        return numbered | {"EchoTime": 2.5 + 2.5 * phase, "EchoNumbers": phase + 1}, {"MREchoSequence": echo}
    if counted == "b-value":
        weighting = {"DiffusionBValue": 500.0 * phase}
        return numbered | weighting, {"MRDiffusionSequence": weighting}
    direction = {"DiffusionGradientOrientation": [[1.0, 0, 0], [0.8, 0.6, 0], [0.6, 0, 0.8], [0, 0.6, 0.8]][phase]}
    weighting = {"DiffusionBValue": 1000.0}
    nested = weighting | {"DiffusionGradientDirectionSequence": direction}
    content = {"DimensionIndexValues": [phase + 1, number + 1]}
    return numbered | weighting | direction, {"MRDiffusionSequence": nested, "FrameContentSequence": content}
