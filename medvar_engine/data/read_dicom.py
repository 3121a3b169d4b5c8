"""Read one DICOM series as volumes: slices of a series, enhanced multi-frame, and cine loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from medvar_engine.data.dicom_file import floats_of, modality_of, values_of
from medvar_engine.data.dicom_geometry import FrameGeometry, parallel, stack_affine
from medvar_engine.data.dicom_pixels import measured, open_image, rescale, stored_pixels
from medvar_engine.data.orientation import check_finite, to_ras
from medvar_engine.data.volume import MINIMUM_SLICES, FloatArray, Volume
from medvar_engine.errors import MedvarError


def load(paths: Sequence[Path], uid: str, phase_step: int, minimum: int = MINIMUM_SLICES) -> Iterator[Volume]:
    """Read one group's pixels as volumes of at least ``minimum`` slices; the checks on geometry are here."""
    try:
        with disable_value_validation():
            first = open_image(paths[0])
            if int(first.get("NumberOfFrames") or 1) > 1:
                yield from _load_multiframe(paths[0], first, uid, phase_step, minimum)
            else:
                yield _load_single_frames(paths, uid, minimum)
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        # A damaged header shows wherever one of its values is first used.
        raise MedvarError(f"{paths[0]}: a value in its header is missing or malformed ({error!r}).") from error


def _load_single_frames(paths: Sequence[Path], uid: str, minimum: int) -> Volume:
    frames: list[FloatArray] = []
    geometry: list[FrameGeometry] = []
    dataset = Dataset()
    for path in paths:
        dataset = open_image(path)
        place = [floats_of(dataset.get(tag)) for tag in ("ImagePositionPatient", "ImageOrientationPatient")]
        position, orientation, spacing = *place, floats_of(dataset.get("PixelSpacing"))
        if position is None or orientation is None or spacing is None:
            raise MedvarError(
                f"{path}: ImagePositionPatient, ImageOrientationPatient or PixelSpacing is missing: "
                "slices cannot be placed."
            )
        geometry.append(FrameGeometry(position, orientation, spacing))
        frames.append(measured(stored_pixels(path, dataset, [0])[0], dataset, *rescale(path, dataset, dataset)))
    return _volume(frames, geometry, dataset, uid, paths[0], None, minimum)


def _load_multiframe(path: Path, dataset: Dataset, uid: str, phase_step: int, minimum: int) -> Iterator[Volume]:
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        yield _load_cine(path, dataset, uid)
        return
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    per_frame = dataset.PerFrameFunctionalGroupsSequence
    if len(per_frame) != int(dataset.NumberOfFrames):
        raise MedvarError(f"{path}: {dataset.NumberOfFrames} frames, but functional groups for {len(per_frame)}.")
    geometry = [_frame_geometry(path, shared, groups) for groups in per_frame]
    times = [_time_key(groups, shared) for groups in per_frame]
    stacks = parallel([(*frame.orientation, *frame.spacing) for frame in geometry])
    for number, stack in enumerate(stacks, 1):
        phases = _phases(path, stack, geometry, times)
        for phase in range(0, len(phases), phase_step):
            indices = phases[phase]
            frames = []
            for index, pixels in zip(indices, stored_pixels(path, dataset, indices), strict=True):
                transformation = _item(per_frame[index], shared, "PixelValueTransformationSequence")
                frames.append(measured(pixels, dataset, *rescale(path, dataset, transformation or dataset)))
            name = f"phase {phase + 1} of {len(phases)}" if len(phases) > 1 else None
            series = f"{uid}/stack{number}" if len(stacks) > 1 else uid
            placed = [geometry[index] for index in indices]
            yield _volume(frames, placed, dataset, series, path, name, minimum)


def _load_cine(path: Path, dataset: Dataset, uid: str) -> Volume:
    """A classic multi-frame file says nothing of where its frames lie: they stay 2-D, in the orientation stored."""
    slope, intercept = rescale(path, dataset, dataset)
    count = int(dataset.NumberOfFrames)
    frames = [measured(pixels, dataset, slope, intercept) for pixels in stored_pixels(path, dataset, range(count))]
    row_mm, column_mm = (floats_of(dataset.get("PixelSpacing")) or (float("nan"),) * 2)[:2]
    # As an axial slice is shown turned by half a circle from RAS, turn the frame so that showing it gives it back.
    array = np.ascontiguousarray(np.stack([frame[::-1, ::-1].T for frame in frames], axis=-1))
    check_finite(array, path)
    affine = np.diag([column_mm, row_mm, 1.0, 1.0])
    spacing = (column_mm, row_mm, float("nan"))
    return Volume(
        array, affine, spacing, modality_of(dataset), _patient_of(dataset), uid, path, phase=None, oriented=False
    )


def _volume(
    frames: Sequence[FloatArray],
    geometry: Sequence[FrameGeometry],
    dataset: Dataset,
    series: str,
    path: Path,
    phase: str | None,
    minimum: int,
) -> Volume:
    order, affine = stack_affine(geometry, path, minimum)
    array, affine, spacing = to_ras(np.stack([frames[i] for i in order]).T, affine, path)
    return Volume(array, affine, spacing, modality_of(dataset), _patient_of(dataset), series, path, phase)


def _patient_of(dataset: Dataset) -> str | None:
    return str(dataset.get("PatientID") or "").strip() or None


def _frame_geometry(path: Path, shared: Dataset, groups: Dataset) -> FrameGeometry:
    def value(sequence: str, keyword: str) -> tuple[float, ...]:
        item = _item(groups, shared, sequence)
        found = floats_of(item.get(keyword)) if item else None
        if found is None:
            raise MedvarError(f"{path}: {sequence}.{keyword} is missing, so frames cannot be placed.")
        return found

    return FrameGeometry(
        value("PlanePositionSequence", "ImagePositionPatient"),
        value("PlaneOrientationSequence", "ImageOrientationPatient"),
        value("PixelMeasuresSequence", "PixelSpacing"),
    )


def _time_key(groups: Dataset, shared: Dataset) -> tuple[float, ...]:
    """What tells frames at one place apart, most telling first: time, delay after the heartbeat, b-value, echo."""

    def number(sequence: str, keyword: str) -> float:
        item = _item(groups, shared, sequence)
        return float((item.get(keyword) if item else None) or 0)

    content = _item(groups, shared, "FrameContentSequence") or Dataset()
    return (
        number("FrameContentSequence", "TemporalPositionIndex"),
        number("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
        number("MRDiffusionSequence", "DiffusionBValue"),
        number("MREchoSequence", "EffectiveEchoTime"),
        *(float(str(index)) for index in values_of(content.get("DimensionIndexValues"))),
    )


def _phases(
    path: Path, stack: Sequence[int], geometry: Sequence[FrameGeometry], times: Sequence[tuple[float, ...]]
) -> list[list[int]]:
    """Frame indices of each phase: the i-th frame in time at every position."""
    places: dict[float, list[int]] = {}
    for index in stack:
        places.setdefault(round(geometry[index].depth, 2), []).append(index)
    counts = {len(indices) for indices in places.values()}
    if len(counts) > 1:
        raise MedvarError(
            f"{path}: positions have {min(counts)} to {max(counts)} frames each; phases cannot be told apart."
        )
    for indices in places.values():
        indices.sort(key=lambda index: (times[index], index))
    return [[indices[phase] for indices in places.values()] for phase in range(counts.pop())]


def _item(groups: Dataset, shared: Dataset, sequence: str) -> Dataset | None:
    """A functional group of a frame, or else the one that all frames share."""
    items = groups.get(sequence) or shared.get(sequence)
    return items[0] if items else None
