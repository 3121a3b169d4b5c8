"""DICOM headers: which files are images that may be used, and which of them make one scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from medvar_engine.errors import MedvarError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
REGION_OF_BODY_PART = {
    "abdomen": "abdomen",
    "liver": "abdomen",
    "kidney": "abdomen",
    "pancreas": "abdomen",
    "spleen": "abdomen",
    "chest": "chest",
    "thorax": "chest",
    "lung": "chest",
    "heart": "heart",
    "cardiac": "heart",
    "brain": "brain",
    "head": "brain",
    "prostate": "prostate",
    "spine": "spine",
    "cspine": "spine",
    "tspine": "spine",
    "lspine": "spine",
    "sspine": "spine",
}

_TAGS = [
    "SOPClassUID", "ImageType", "BurnedInAnnotation", "Modality", "BodyPartExamined", "PatientID", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID", "AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier",
    "TriggerTime", "DiffusionBValue", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows",
    "Columns", "NumberOfFrames", "PhotometricInterpretation", "ModalityLUTSequence",
]  # fmt: skip

# What tells images of one series at one place apart, tried in this order.
_SPLITTERS = ("EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "TriggerTime")


@dataclass(frozen=True, slots=True)
class Header:
    """What grouping needs of one file."""

    path: Path
    dataset: Dataset
    modality: str
    region: str | None
    patient: str
    patient_guessed: bool
    frames: int
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None


def looks_like_dicom(path: Path) -> bool:
    """Whether the file has DICOM's magic word or a suffix of DICOM files. DICOMDIR is an index, not an image."""
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """The header of one file. Raises `MedvarError` for files that are no CT or MR image, or that may name a person."""
    try:
        with disable_value_validation():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
            return _check(path, dataset)
    except (OSError, EOFError, InvalidDicomError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise MedvarError(f"the header cannot be read, the file may be truncated ({error})") from error


def _check(path: Path, dataset: Dataset) -> Header:
    if "SOPClassUID" not in dataset or "Rows" not in dataset or "SeriesInstanceUID" not in dataset:
        raise MedvarError("it is not a DICOM image: SOPClassUID, SeriesInstanceUID or Rows is missing")
    image_type = [str(value).upper() for value in values_of(dataset.get("ImageType"))]
    modality = str(dataset.get("Modality", "")).upper()
    burned_in = str(dataset.get("BurnedInAnnotation") or "NO").upper()
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if "Secondary Capture" in dataset.SOPClassUID.name:
        raise MedvarError("a secondary capture (SOPClassUID) may show names in its pixels and holds no measured values")
    if burned_in != "NO":
        raise MedvarError(f"BurnedInAnnotation is {burned_in}: its pixels may name the patient")
    if modality not in ("CT", "MR"):
        raise MedvarError(f"Modality is {modality or 'missing'}; CT and MR are used")
    if "LOCALIZER" in image_type or "SCOUT" in image_type:
        raise MedvarError("ImageType says LOCALIZER: a planning image, not part of a scan")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise MedvarError(f"PhotometricInterpretation is {photometric or 'missing'}; MONOCHROME1 or 2 is expected")
    if "ModalityLUTSequence" in dataset:
        raise MedvarError("its values are given by a ModalityLUTSequence, which is not supported")
    body_part = str(dataset.get("BodyPartExamined") or "").lower()
    patient = str(dataset.get("PatientID") or "").strip()
    return Header(
        path,
        dataset,
        modality,
        REGION_OF_BODY_PART.get(body_part),
        patient or f"study-{str(dataset.get('StudyInstanceUID', dataset.SeriesInstanceUID))[-16:]}",
        not patient,
        int(dataset.get("NumberOfFrames") or 1),
        floats_of(dataset.get("ImageOrientationPatient")),
        floats_of(dataset.get("ImagePositionPatient")),
    )


def group(headers: Iterable[Header]) -> list[list[Header]]:
    """Headers → series that are one scan each: same UID, matrix, type, orientation, acquisition, echo and time."""
    groups: list[list[Header]] = []
    for same_series in _by(headers, lambda one: (one.patient, one.modality, str(one.dataset.SeriesInstanceUID))):
        multi = [header for header in same_series if header.frames > 1]
        groups += [[header] for header in multi]
        single = [header for header in same_series if header.frames == 1]
        for alike in _by(single, _matrix_and_type):
            for parallel in _by_orientation(alike):
                for frame in _split_usefully(parallel, "FrameOfReferenceUID"):
                    for acquisition in _split_usefully(frame, "AcquisitionNumber"):
                        groups += _split_repeats(acquisition)
    return [sorted(members, key=lambda header: header.path) for members in groups]


def name_groups(groups: Sequence[list[Header]]) -> dict[str, list[Header]]:
    """Name → group: the series' UID, with a number when several scans share it."""
    names: dict[str, list[Header]] = {}
    for same in _by_uid(groups).values():
        for number, members in enumerate(same, 1):
            uid = str(members[0].dataset.SeriesInstanceUID)
            names[f"{uid}#{number}" if len(same) > 1 else uid] = members
    return names


def _by_uid(groups: Sequence[list[Header]]) -> dict[str, list[list[Header]]]:
    shared: dict[str, list[list[Header]]] = {}
    for members in sorted(groups, key=lambda one: one[0].path):
        shared.setdefault(str(members[0].dataset.SeriesInstanceUID), []).append(members)
    return shared


def _matrix_and_type(header: Header) -> object:
    return header.dataset.Rows, header.dataset.Columns, tuple(values_of(header.dataset.get("ImageType")))


def _by(headers: Iterable[Header], key: Callable[[Header], object]) -> list[list[Header]]:
    groups: dict[object, list[Header]] = {}
    for header in headers:
        groups.setdefault(key(header), []).append(header)
    return list(groups.values())


def _by_orientation(headers: Sequence[Header]) -> list[list[Header]]:
    groups: list[list[Header]] = []
    for header in headers:
        for members in groups:
            first = members[0].orientation
            if first == header.orientation or (
                first is not None
                and header.orientation is not None
                and np.allclose(first, header.orientation, atol=1e-3)
            ):
                members.append(header)
                break
        else:
            groups.append([header])
    return groups


def _split_usefully(headers: list[Header], keyword: str) -> list[list[Header]]:
    """Split by a tag, unless that leaves fewer than three slices somewhere: then the tag numbers slices, not scans.

    De-identified archives, LIDC-IDRI for one, gave every slice a frame of reference of its own.
    """
    parts = _by(headers, lambda header: str(header.dataset.get(keyword)))
    return parts if min(len(part) for part in parts) >= 3 else [headers]


def _split_repeats(headers: list[Header]) -> list[list[Header]]:
    """Where several images lie at one place, split by echo, time or b-value; by none, when that resolves nothing."""
    if _places(headers) == len(headers):
        return [headers]
    for keyword in _SPLITTERS:
        parts = _by(headers, lambda header, tag=keyword: str(header.dataset.get(tag)))  # type: ignore[misc]
        if len(parts) > 1 and all(_places(part) == len(part) for part in parts):
            return parts
    return [headers]


def _places(headers: Sequence[Header]) -> int:
    return len({tuple(round(value, 2) for value in header.position or ()) for header in headers})


def values_of(value: object) -> list[object]:
    """A DICOM value of any multiplicity as a list; nothing is an empty list."""
    if value is None or isinstance(value, str | bytes):
        return [] if value is None else [value]
    return list(value) if isinstance(value, Iterable) else [value]


def floats_of(value: object) -> tuple[float, ...] | None:
    """A DICOM value as numbers, or None where it is missing or empty."""
    values = values_of(value)
    return tuple(float(str(item)) for item in values) if values and all(str(item) for item in values) else None
