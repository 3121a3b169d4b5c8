"""Well-formed series as scanners of many makers write them: each comes back as the volumes that were scanned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, JPEGLSLossless, RLELossless
from reading import item, place_group, volumes_and_reasons

from medvar_engine.data.read.volume import Volume


def enhanced(
    image: Any, frames: Sequence[np.ndarray], groups: Sequence[dict[str, Any]], shared: dict[str, Any], **tags: Any
) -> FileDataset:
    """An enhanced image of ``frames``, with the functional groups of each and those of all, by their keywords."""
    modality = tags.pop("Modality", "MR")
    sop = EnhancedMRImageStorage if modality == "MR" else EnhancedCTImageStorage
    one = image(modality, np.stack(frames), SOPClassUID=sop, NumberOfFrames=len(frames), **tags)
    one.file_meta.MediaStorageSOPClassUID = sop
    (one.SharedFunctionalGroupsSequence,) = [item(**shared)]
    one.PerFrameFunctionalGroupsSequence = [item(**group)[0] for group in groups]
    return one


AXIAL = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
PIXELS = {"PixelSpacing": [1.25, 1.5]}
SHARED = {"PlaneOrientationSequence": AXIAL, "PixelMeasuresSequence": PIXELS}


def axial(array: np.ndarray, number: int) -> np.ndarray:
    return array[::-1, ::-1, number].T


def offsets(volumes: Sequence[Volume], phantom: np.ndarray) -> list[int]:
    """What was added to the phantom in each volume."""
    found = []
    for one in volumes:
        found.append(round(float(one.array[0, 0, 0]) - float(phantom[0, 0, 0])))
        np.testing.assert_array_equal(one.array, phantom[..., : one.array.shape[2]] + found[-1])
    return sorted(found)


# One file an image


@pytest.mark.parametrize("lacking", [(3, range(2, 42)), (1, [20]), (0, [0, 1, 30])])
def test_a_time_point_that_lacks_slices_is_refused_alone(
    tmp_path: Path, phantom: Any, series: Any, lacking: tuple[int, Sequence[int]]
) -> None:
    """Breaks for dynamic scans that were interrupted, or lost an image: all time points were refused for one."""

    def change(i: int, one: FileDataset, time: int) -> bool:
        one.TemporalPositionIdentifier, one.InstanceNumber = time + 1, 42 * time + i + 1
        return not (time == lacking[0] and i in lacking[1])

    for time in range(4):
        series(tmp_path / str(time), phantom + time, change=lambda i, one, time=time: change(i, one, time))
    volumes, (reason,) = volumes_and_reasons(tmp_path, phase_step=1)
    assert offsets(volumes, phantom) == [time for time in range(4) if time != lacking[0]]
    assert "2 slices; a scan needs" in reason if lacking[0] == 3 else "missing" in reason or "uneven" in reason
    assert f"{tmp_path / str(lacking[0])}" in reason


def test_phases_of_which_some_lack_slices_are_not_mixed(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for cines with fewer phases in some slices: ranks would lay another moment beside the others."""

    def change(i: int, one: FileDataset, phase: int) -> bool:
        one.TriggerTime, one.InstanceNumber = 40.0 * phase + i / 10, 5 * i + phase
        return not (phase == 0 and i in (7, 9))

    for phase in range(3):
        series(tmp_path / str(phase), phantom + phase, change=lambda i, one, phase=phase: change(i, one, phase))
    volumes, (reason,) = volumes_and_reasons(tmp_path, phase_step=1)
    assert not volumes
    assert "parts them into volumes" in reason


def test_a_scan_over_midnight(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for scans at night: the time of day begins anew, and the last time point would come first."""
    for time, (day, clock) in enumerate((("20200229", "235959.5"), ("20200301", "000001.0"))):
        series(tmp_path / str(time), phantom + time, AcquisitionDate=day, AcquisitionTime=clock)
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=1)
    assert not reasons
    assert offsets(volumes, phantom) == [0, 1]


def test_a_slope_of_zero_is_reported(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for damaged headers: one slice would be black, or the whole scan refused as blank."""
    series(tmp_path, phantom, change=lambda i, one: setattr(one, "RescaleSlope", int(i != 5)), RescaleIntercept=0)
    volumes, (reason,) = volumes_and_reasons(tmp_path)
    assert not volumes
    assert "RescaleSlope is 0" in reason


def test_echoes_over_time(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for dynamic scans of two echoes: each echo is a scan, and each scan has its time points."""
    for phase in range(9):
        for echo in range(2):
            series(
                tmp_path / f"{phase}-{echo}",
                phantom + 10 * phase + echo,
                EchoTime=2.5 + 2.5 * echo,
                EchoNumbers=echo + 1,
                AcquisitionTime=f"10{phase:02d}30.5",
            )
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=8)
    assert not reasons
    assert offsets(volumes, phantom) == [0, 1, 80, 81]


def test_slices_with_a_number_for_each_image_and_time(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for scanners that count acquisitions through all slices and times, and give each image a time."""
    count = 0
    for phase in range(3):

        def change(number: int, one: Any, phase: int = phase) -> None:
            nonlocal count
            count += 1
            one.AcquisitionNumber = one.InstanceNumber = count
            one.AcquisitionTime = f"1015{phase:02d}.{number:03d}"
            one.ContentTime = one.AcquisitionTime

        series(tmp_path / str(phase), phantom + phase, change=change)
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=1)
    assert not reasons
    assert offsets(volumes, phantom) == [0, 1, 2]


def test_diffusion_with_trace_and_map_in_one_series(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for diffusion series that keep what was computed beside what was measured."""
    shown = [
        (0.0, None, ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]),
        (1000.0, [1, 0, 0], ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]),
        (1000.0, [0, 0.6, 0.8], ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]),
        (1000.0, None, ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]),
        (0.0, None, ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]),
    ]
    for number, (b_value, direction, types) in enumerate(shown):
        tags: dict[str, Any] = {"DiffusionBValue": b_value, "ImageType": types}
        if direction is not None:
            tags["DiffusionGradientOrientation"] = direction
        series(tmp_path / str(number), phantom + number, **tags)
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert offsets(volumes, phantom) == [0]
    assert len(reasons) == 42
    assert all("diffusion coefficient" in one for one in reasons)
    volumes, _ = volumes_and_reasons(tmp_path, diffusion="all")
    assert offsets(volumes, phantom) == [0, 1, 2, 3]


def test_a_diffusion_scan_without_b_values(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for diffusion of which the header keeps directions alone, as anonymisers leave it."""
    for number, direction in enumerate([[0, 0, 0], [1, 0, 0], [0, 1, 0]]):
        series(tmp_path / str(number), phantom + number, DiffusionGradientOrientation=direction)
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=1, diffusion="all")
    assert not reasons
    assert offsets(volumes, phantom) == [0, 1, 2]


@pytest.mark.parametrize(("kind", "said"), [(1, "phase"), (2, "real part"), (3, "imaginary part")])
def test_private_elements_of_ge_give_the_part_of_the_signal(
    tmp_path: Path, phantom: Any, series: Any, kind: int, said: str
) -> None:
    """Breaks for GE, whose ImageType is the same for magnitude, phase, real and imaginary part."""

    def change(number: int, one: Any, kind: int = 0) -> None:
        one.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", kind)

    series(tmp_path / "m", phantom, change=change)
    series(tmp_path / "p", phantom + 1, change=lambda number, one: change(number, one, kind))
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert offsets(volumes, phantom) == [0]
    assert len(reasons) == 42
    assert said in reasons[0]


def test_water_and_fat_are_separate_scans(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for Dixon scans, four contrasts of one place in one series."""
    for number, name in enumerate(("W", "F", "IP", "OP")):
        series(tmp_path / name, phantom + number, ImageType=["DERIVED", "PRIMARY", "DIXON", name])
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    assert offsets(volumes, phantom) == [0, 1, 2, 3]
    assert len({one.series for one in volumes}) == 4


def test_two_patients_positions_of_one_series(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for a scan that was repeated after the patient moved: another frame of reference, the same places."""
    for number in range(2):
        series(tmp_path / str(number), phantom + number, FrameOfReferenceUID=f"1.2.3.{number + 4}")
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    assert offsets(volumes, phantom) == [0, 1]


def test_matrix_and_pixel_size_divide_a_series(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for series that hold a second reconstruction: its slices lie among those of the first."""
    series(tmp_path / "large", phantom)
    series(tmp_path / "small", phantom[:40])
    series(tmp_path / "zoomed", phantom, change=lambda number, one: setattr(one, "PixelSpacing", [0.5, 0.5]))
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    assert sorted((one.array.shape, one.spacing[0]) for one in volumes) == [
        ((40, 44, 42), 1.5),
        ((48, 44, 42), 0.5),
        ((48, 44, 42), 1.5),
    ]


def test_a_ct_with_its_scouts_and_dose_report(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for folders as scanners send them: what is no scan is named, and does not stand in the way."""
    hu = {"RescaleSlope": 1, "RescaleIntercept": -1024, "modality": "CT"}
    series(tmp_path / "scan", phantom, **hu)
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]
    series(tmp_path / "scout", phantom, "coronal", change=lambda i, one: i == 20, ImageType=scout, **hu)
    dose = ["DERIVED", "SECONDARY", "SCREEN SAVE", "DOSE_INFO"]
    series(tmp_path / "dose", phantom, change=lambda i, one: i == 0, ImageType=dose, **hu)
    volumes, reasons = volumes_and_reasons(tmp_path)
    np.testing.assert_array_equal(volumes[0].array, phantom - 1024.0)
    assert len(volumes) == 1
    assert sorted("planning" in one for one in reasons) == [False, True]
    assert any("screen capture" in one for one in reasons)


@pytest.mark.parametrize("syntax", [None, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize("inverted", [False, True])
def test_padding_of_signed_words_in_every_syntax(
    tmp_path: Path, phantom: Any, series: Any, syntax: str | None, inverted: bool
) -> None:
    """Breaks for MR with a round field of view and values below 0, shown white on black or black on white."""
    stored = phantom.astype(np.int16) - 700
    array = stored.copy()
    array[:4, :6] = -2000

    def change(number: int, one: Any) -> None:
        one.PixelRepresentation = 1
        one.add_new("PixelPaddingValue", "SS", -2000)
        if inverted:
            one.PhotometricInterpretation = "MONOCHROME1"
        if syntax is not None:
            one.compress(syntax, one.pixel_array, generate_instance_uid=False)

    series(tmp_path, array.astype(np.uint16) & 0x0FFF, change=change)
    (volume,), reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    inside = np.ones(array.shape, bool)
    inside[:4, :6] = False
    expected = (-1.0 - stored if inverted else stored.astype(float))[inside]
    np.testing.assert_array_equal(volume.array[inside], expected)
    assert set(volume.array[~inside].tolist()) == {expected.min()}


# Enhanced files


def test_unordered_frames_with_separate_slopes(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for enhanced MR of Philips: each frame has its scale, and lies anywhere in the file."""
    order = np.random.default_rng(1).permutation(12)
    groups = [
        place_group(number)
        | {"PixelValueTransformationSequence": {"RescaleSlope": 1 + number, "RescaleIntercept": number}}
        for number in order.tolist()
    ]
    enhanced(dicom_image, [axial(phantom, n) for n in order], groups, SHARED).save_as(tmp_path / "a.dcm")
    (volume,), reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    np.testing.assert_array_equal(volume.array, phantom[..., :12] * (1 + np.arange(12)) + np.arange(12))


def test_all_groups_shared_in_files_of_one_frame(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for enhanced files of one frame whose place is in the shared groups, which all of its frames have."""
    for number in range(12):
        one = enhanced(dicom_image, [axial(phantom, number)], [{}], SHARED | place_group(number))
        one.save_as(tmp_path / f"{number}.dcm")
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    assert offsets(volumes, phantom) == [0]


def test_a_volume_in_parts(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for concatenations: one volume in several files, of which none is whole."""
    for part in range(4):
        numbers = range(part, 12, 4)
        one = enhanced(dicom_image, [axial(phantom, n) for n in numbers], [place_group(n) for n in numbers], SHARED)
        one.ConcatenationUID, one.InConcatenationNumber = "1.2.3.9", part + 1
        one.save_as(tmp_path / f"{part}.dcm")
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    assert offsets(volumes, phantom) == [0]


def test_two_stacks_in_one_file(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for enhanced files of several orientations: each stack is a scan."""
    frames, groups = [], []
    for number in range(12):
        frames.append(axial(phantom, number)[:, :44])
        groups.append(place_group(number) | {"PlaneOrientationSequence": AXIAL})
    for number in range(10):
        frames.append(np.full((44, 44), number))
        position = {"ImagePositionPatient": [-40.5, -60 + 3.0 * number, 180]}
        sagittal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
        groups.append({"PlanePositionSequence": position, "PlaneOrientationSequence": sagittal})
    enhanced(dicom_image, frames, groups, {"PixelMeasuresSequence": PIXELS}).save_as(tmp_path / "a.dcm")
    volumes, reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    assert sorted(one.array.shape for one in volumes) == [(44, 10, 44), (44, 44, 12)]


def test_diffusion_frames_with_an_isotropic_one(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for enhanced diffusion: directions, repeated b = 0, and the isotropic mean at the end."""
    frames, groups = [], []
    shown = [(0, None), (700, [1, 0, 0]), (700, [0, 0, 1]), (0, None), (700, None)]
    for number in range(12):
        for volume, (b_value, direction) in enumerate(shown):
            frames.append(axial(phantom, number) + volume)
            diffusion: dict[str, Any] = {"DiffusionBValue": float(b_value)}
            diffusion["DiffusionDirectionality"] = "DIRECTIONAL" if direction else "ISOTROPIC" if b_value else "NONE"
            if direction:
                diffusion["DiffusionGradientDirectionSequence"] = {"DiffusionGradientOrientation": direction}
            content = {"DimensionIndexValues": [number + 1, volume + 1], "TemporalPositionIndex": volume + 1}
            groups.append(place_group(number) | {"MRDiffusionSequence": diffusion, "FrameContentSequence": content})
    enhanced(dicom_image, frames, groups, SHARED).save_as(tmp_path / "a.dcm")
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=1)
    assert not reasons
    assert offsets(volumes, phantom) == [0, 3]
    volumes, reasons = volumes_and_reasons(tmp_path, diffusion="all")
    assert offsets(volumes, phantom) == [0, 1, 2, 3, 4]


def test_cardiac_phases_by_trigger_delay(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for enhanced cine: times after the R wave differ from slice to slice."""
    frames, groups = [], []
    for number in range(8):
        for phase in range(10):
            frames.append(axial(phantom, number) + phase)
            delay = {"NominalCardiacTriggerDelayTime": 31.0 * phase + 0.7 * number}
            groups.append(place_group(number) | {"CardiacSynchronizationSequence": delay})
    order = np.random.default_rng(3).permutation(len(frames))
    one = enhanced(dicom_image, [frames[i] for i in order], [groups[i] for i in order], SHARED)
    one.save_as(tmp_path / "a.dcm")
    volumes, reasons = volumes_and_reasons(tmp_path, phase_step=4)
    assert not reasons
    assert [one.phase for one in volumes] == ["phase 1 of 10", "phase 5 of 10", "phase 9 of 10"]
    assert offsets(volumes, phantom) == [0, 4, 8]


def test_enhanced_ct_in_hounsfield_units(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for enhanced CT, whose unit is in a functional group that all frames share."""
    scale = {"PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}}
    types = {"CTImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]}}
    frames, groups = (
        [axial(phantom, number) for number in range(12)],
        [place_group(number) for number in range(12)],
    )
    enhanced(dicom_image, frames, groups, SHARED | scale | types, Modality="CT").save_as(tmp_path / "a.dcm")
    (volume,), reasons = volumes_and_reasons(tmp_path)
    assert not reasons
    np.testing.assert_array_equal(volume.array, phantom[..., :12] - 1024.0)


@pytest.mark.parametrize("lacking", ["PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"])
def test_frames_without_a_place_are_refused(tmp_path: Path, phantom: Any, dicom_image: Any, lacking: str) -> None:
    """Breaks for enhanced files of which a converter lost groups: nobody can say where the frames lie."""
    frames = [axial(phantom, number) for number in range(12)]
    shared = {name: value for name, value in SHARED.items() if name != lacking}
    groups = [{} if lacking.startswith("PlaneP") else place_group(number) for number in range(12)]
    enhanced(dicom_image, frames, groups, shared).save_as(tmp_path / "a.dcm")
    volumes, (reason,) = volumes_and_reasons(tmp_path)
    assert not volumes
    assert "cannot be placed" in reason


def test_velocity_and_magnitude_frames(tmp_path: Path, phantom: Any, dicom_image: Any) -> None:
    """Breaks for flow measurements: magnitude, and phase that is a velocity, in one enhanced file."""
    frames, groups = [], []
    for number in range(12):
        for component, value in (("MAGNITUDE", 0), ("PHASE", 5)):
            frames.append(axial(phantom, number) + value)
            kind = {"FrameType": ["ORIGINAL", "PRIMARY", "FLOW_ENCODED", "NONE"], "ComplexImageComponent": component}
            groups.append(place_group(number) | {"MRImageFrameTypeSequence": kind})
    enhanced(dicom_image, frames, groups, SHARED).save_as(tmp_path / "a.dcm")
    volumes, (reason,) = volumes_and_reasons(tmp_path)
    assert offsets(volumes, phantom) == [0]
    assert "12 of 24 frames are left out: ComplexImageComponent is PHASE" in reason


# Reasons


def test_another_reconstruction_at_the_same_positions_is_not_a_duplicate(
    tmp_path: Path, phantom: Any, series: Any
) -> None:
    """Breaks for what nothing tells apart: it is refused, but not for being a duplicate, which it is not."""
    for number in range(2):
        series(tmp_path / str(number), phantom + number)
        for path in (tmp_path / str(number)).iterdir():
            one = pydicom.dcmread(path)
            del one.InstanceNumber
            one.save_as(path)
    volumes, (reason,) = volumes_and_reasons(tmp_path)
    assert not volumes
    assert "show something else" in reason
    assert "duplicate" not in reason
