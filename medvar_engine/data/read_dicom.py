"""Read the pixels of one DICOM series as volumes: slices of a series, enhanced multi-frame, and cine loops."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from medvar_engine.data.dicom_geometry import FrameGeometry, stack_affine
from medvar_engine.data.dicom_header import floats_of, values_of
from medvar_engine.data.orientation import to_ras
from medvar_engine.data.volume import FloatArray, Volume
from medvar_engine.errors import MedvarError


def load(paths: Sequence[Path], uid: str, phase_step: int) -> Iterator[Volume]:
    """Read one group's pixels as volumes; the checks on geometry are here."""
    try:
        with disable_value_validation():
            first = _dcmread(paths[0])
            if int(first.get("NumberOfFrames") or 1) > 1:
                yield from _load_multiframe(paths[0], first, uid, phase_step)
            else:
                yield _load_single_frames(paths, uid)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # A damaged header shows wherever one of its values is first used.
        raise MedvarError(f"{paths[0]}: a value in its header is missing or malformed ({error!r}).") from error


def _load_single_frames(paths: Sequence[Path], uid: str) -> Volume:
    frames: list[FloatArray] = []
    geometry: list[FrameGeometry] = []
    dataset = Dataset()
    for path in paths:
        dataset = _dcmread(path)
        position, orientation = (
            floats_of(dataset.get("ImagePositionPatient")),
            floats_of(dataset.get("ImageOrientationPatient")),
        )
        spacing = floats_of(dataset.get("PixelSpacing"))
        if position is None or orientation is None or spacing is None:
            raise MedvarError(
                f"{path}: ImagePositionPatient, ImageOrientationPatient or PixelSpacing is missing: "
                "slices cannot be placed."
            )
        geometry.append(FrameGeometry(position, orientation, spacing))
        frames.append(_measured(_pixels(path, dataset, [0])[0], dataset, *_rescale(path, dataset, dataset)))
    order, affine = stack_affine(geometry, paths[0])
    array, affine, size = to_ras(np.stack([frames[i].T for i in order], axis=-1), affine, paths[0])
    return Volume(
        array, affine, size, str(dataset.Modality), str(dataset.get("PatientID") or "") or None, uid, paths[0]
    )


def _load_multiframe(path: Path, dataset: Dataset, uid: str, phase_step: int) -> Iterator[Volume]:
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        yield _load_cine(path, dataset, uid)
        return
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    per_frame = dataset.PerFrameFunctionalGroupsSequence
    if len(per_frame) != int(dataset.NumberOfFrames):
        raise MedvarError(f"{path}: {dataset.NumberOfFrames} frames, but functional groups for {len(per_frame)}.")
    geometry = [_frame_geometry(path, shared[0], groups) for groups in per_frame]
    stacks = _stacks(geometry)
    for number, stack in enumerate(stacks):
        phases = _phases(path, stack, geometry, [_time_key(groups) for groups in per_frame])
        for phase in range(0, len(phases), phase_step):
            indices = phases[phase]
            frames = []
            for index, pixels in zip(indices, _pixels(path, dataset, indices), strict=True):
                items = _items(per_frame[index], shared[0], "PixelValueTransformationSequence")
                frames.append(_measured(pixels, dataset, *_rescale(path, dataset, items[0] if items else dataset)))
            order, affine = stack_affine([geometry[index] for index in indices], path)
            array, affine, size = to_ras(np.stack([frames[i].T for i in order], axis=-1), affine, path)
            name = f"phase {phase + 1} of {len(phases)}" if len(phases) > 1 else None
            series = f"{uid}/stack{number + 1}" if len(stacks) > 1 else uid
            yield Volume(
                array,
                affine,
                size,
                str(dataset.Modality),
                str(dataset.get("PatientID") or "") or None,
                series,
                path,
                name,
            )


def _load_cine(path: Path, dataset: Dataset, uid: str) -> Volume:
    """A classic multi-frame file says nothing of where its frames lie: they stay 2-D, in the orientation stored."""
    count = int(dataset.NumberOfFrames)
    slope, intercept = _rescale(path, dataset, dataset)
    frames = [_measured(pixels, dataset, slope, intercept) for pixels in _pixels(path, dataset, range(count))]
    row_mm, column_mm = (floats_of(dataset.get("PixelSpacing")) or (float("nan"),) * 2)[:2]
    # As an axial slice is shown turned by half a circle from RAS, turn the frame so that showing it gives it back.
    array = np.ascontiguousarray(np.stack([frame[::-1, ::-1].T for frame in frames], axis=-1))
    return Volume(
        array,
        np.diag([column_mm, row_mm, 1.0, 1.0]),
        (column_mm, row_mm, float("nan")),
        str(dataset.Modality),
        str(dataset.get("PatientID") or "") or None,
        uid,
        path,
        None,
        oriented=False,
    )


def _frame_geometry(path: Path, shared: Dataset, groups: Dataset) -> FrameGeometry:
    def value(sequence: str, keyword: str) -> tuple[float, ...]:
        items = _items(groups, shared, sequence)
        found = floats_of(items[0].get(keyword)) if items else None
        if found is None:
            raise MedvarError(f"{path}: {sequence}.{keyword} is missing, so frames cannot be placed.")
        return found

    return FrameGeometry(
        value("PlanePositionSequence", "ImagePositionPatient"),
        value("PlaneOrientationSequence", "ImageOrientationPatient"),
        value("PixelMeasuresSequence", "PixelSpacing"),
    )


def _time_key(groups: Dataset) -> tuple[float, ...]:
    content = (groups.get("FrameContentSequence") or [Dataset()])[0]
    cardiac = (groups.get("CardiacSynchronizationSequence") or [Dataset()])[0]
    return (
        float(content.get("TemporalPositionIndex") or 0),
        float(cardiac.get("NominalCardiacTriggerDelayTime") or 0),
        *(float(str(index)) for index in values_of(content.get("DimensionIndexValues"))),
    )


def _stacks(geometry: Sequence[FrameGeometry]) -> list[list[int]]:
    """Frame indices of each orientation."""
    stacks: list[list[int]] = []
    for index, frame in enumerate(geometry):
        for stack in stacks:
            if geometry[stack[0]].is_parallel(frame):
                stack.append(index)
                break
        else:
            stacks.append([index])
    return stacks


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


def _items(groups: Dataset, shared: Dataset, sequence: str) -> Sequence[Dataset]:
    """A functional group of a frame, or else the one that all frames share."""
    return groups.get(sequence) or shared.get(sequence) or []


def _rescale(path: Path, dataset: Dataset, source: Dataset) -> tuple[float, float]:
    """Slope and intercept. A CT without them, or of another unit, is not in HU and is refused."""
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    if str(dataset.Modality) == "CT":
        unit = str(source.get("RescaleType") or "HU")
        if slope is None or intercept is None or unit not in ("HU", "US"):
            raise MedvarError(f"{path}: CT values are not in HU (RescaleSlope {slope}, RescaleType {unit}).")
    return float(1 if slope is None else slope), float(0 if intercept is None else intercept)


def _measured(pixels: NDArray[np.generic], dataset: Dataset, slope: float, intercept: float) -> FloatArray:
    """Stored pixels → values. HU are HU whatever the display polarity; MR in MONOCHROME1 is turned to bright = high."""
    stored = pixels.astype(np.float32)
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1" and str(dataset.Modality) != "CT":
        signed = int(dataset.get("PixelRepresentation", 0)) == 1
        stored = (-1.0 if signed else 2.0 ** int(dataset.BitsStored) - 1.0) - stored
    return np.asarray(stored * np.float32(slope) + np.float32(intercept), dtype=np.float32)


def _dcmread(path: Path) -> Dataset:
    try:
        with warnings.catch_warnings():
            # A cut file is only warned of, and comes back without its pixels or the whole of its values.
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise MedvarError(f"{path}: cannot be read, it may be truncated ({error}).") from error
    if "PixelData" not in dataset:
        raise MedvarError(f"{path}: it has no PixelData; the file may be truncated.")
    return dataset


def _pixels(path: Path, dataset: Dataset, indices: Iterable[int]) -> list[NDArray[np.generic]]:
    try:
        return list(iter_pixels(dataset, indices=list(indices)))
    except Exception as error:  # decoders of five libraries raise what they like
        raise MedvarError(f"{path}: the pixels cannot be decoded, the file may be truncated ({error}).") from error
