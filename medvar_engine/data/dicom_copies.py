"""The same DICOM image in two files counts once; two images under one SOPInstanceUID stay two."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medvar_engine.data.dicom_file import open_dicom
from medvar_engine.data.dicom_header import Header


def without_copies(headers: Iterable[Header]) -> list[Header]:
    """Headers without those of files that repeat another: the same series, SOPInstanceUID, place and pixels."""
    first: dict[tuple[object, ...], Path] = {}
    copies: dict[Path, bool] = {}
    kept: list[Header] = []
    for header in sorted(headers, key=lambda one: (one.path, one.index)):
        key = header.patient, header.series_uid, header.instance_uid, header.index, header.position
        known = first.setdefault(key, header.path)
        if known != header.path:
            if header.path not in copies:
                copies[header.path] = _same_pixels(known, header.path)
            if copies[header.path]:
                continue
        kept.append(header)
    return kept


def _same_pixels(one: Path, another: Path) -> bool:
    if one.stat().st_size == another.stat().st_size and one.read_bytes() == another.read_bytes():
        return True
    pixels = open_dicom(one).get("PixelData")
    return pixels is not None and pixels == open_dicom(another).get("PixelData")
