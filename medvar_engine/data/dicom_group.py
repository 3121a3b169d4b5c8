"""Which DICOM headers make one scan: same series, matrix, type, orientation and acquisition, one image at a place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from medvar_engine.data.dicom_geometry import parallel
from medvar_engine.data.dicom_header import Header
from medvar_engine.data.volume import MINIMUM_SLICES

# What tells images of one series at one place apart: one of them, or else several together, tried in this order.
_SPLITTERS = ("EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "TriggerTime", "AcquisitionTime")


def group(headers: Iterable[Header]) -> list[list[Header]]:
    """Headers → series that are one scan each: same UID, matrix, type, orientation, acquisition, echo and time."""
    groups: list[list[Header]] = []
    for same_series in _by(headers, lambda one: (one.patient, one.modality, one.series_uid)):
        multi = [header for header in same_series if header.frames > 1]
        groups += [[header] for header in multi]
        single = [header for header in same_series if header.frames == 1]
        for alike in _by(single, lambda one: one.kind):
            for one_way in _by_orientation(alike):
                for frame in _split_usefully(one_way, "FrameOfReferenceUID"):
                    for acquisition in _split_usefully(frame, "AcquisitionNumber"):
                        groups += _split_repeats(acquisition)
    return [sorted(members, key=lambda header: header.path) for members in groups]


def name_groups(groups: Sequence[list[Header]]) -> dict[str, list[Header]]:
    """Name → group: the series' UID, with a number when several scans share it."""
    names: dict[str, list[Header]] = {}
    for same in _by_uid(groups).values():
        for number, members in enumerate(same, 1):
            uid = members[0].series_uid
            names[f"{uid}#{number}" if len(same) > 1 else uid] = members
    return names


def _by_uid(groups: Sequence[list[Header]]) -> dict[str, list[list[Header]]]:
    shared: dict[str, list[list[Header]]] = {}
    for members in sorted(groups, key=lambda one: one[0].path):
        shared.setdefault(members[0].series_uid, []).append(members)
    return shared


def _by(headers: Iterable[Header], key: Callable[[Header], object]) -> list[list[Header]]:
    groups: dict[object, list[Header]] = {}
    for header in headers:
        groups.setdefault(key(header), []).append(header)
    return list(groups.values())


def _by_orientation(headers: Sequence[Header]) -> list[list[Header]]:
    return [[headers[index] for index in alike] for alike in parallel([header.orientation for header in headers])]


def _split_usefully(headers: list[Header], keyword: str) -> list[list[Header]]:
    """Split by a tag, unless that leaves fewer than three slices somewhere: then the tag numbers slices, not scans.

    De-identified archives, LIDC-IDRI for one, gave every slice a frame of reference of its own.
    """
    parts = _by(headers, lambda header: header.values[keyword])
    return parts if min(len(part) for part in parts) >= MINIMUM_SLICES else [headers]


def _split_repeats(headers: list[Header]) -> list[list[Header]]:
    """Where several images lie at one place, split by echo, time or b-value; by none, when that resolves nothing.

    What would leave parts of fewer slices than a scan needs numbers images, not scans.
    """
    if _places(headers) == len(headers):
        return [headers]
    for count in range(1, len(_SPLITTERS) + 1):
        for keywords in combinations(_SPLITTERS, count):
            parts = _by(headers, lambda one, tags=keywords: tuple(one.values[tag] for tag in tags))  # type: ignore[misc]
            if len(headers) >= MINIMUM_SLICES * len(parts) and all(_places(part) == len(part) for part in parts):
                return parts
    return [headers]


def _places(headers: Sequence[Header]) -> int:
    return len({tuple(round(value, 2) for value in header.position or ()) for header in headers})
