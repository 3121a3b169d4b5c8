"""The same DICOM image in several files counts once; two images under one SOPInstanceUID stay two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from medvar_engine.data.read.dicom_header import Header
from medvar_engine.data.read.dicom_pixels import open_image, stored_pixels
from medvar_engine.data.read.refusal import Refusal, reason_of


def without_copies(headers: Iterable[Header]) -> tuple[list[Header], list[Refusal]]:
    """Headers without those of files that repeat another, and the copies that are refused since they are damaged.

    Copies have one series, SOPInstanceUID, place and pixels; the transfer syntax may differ, as lossless compression
    keeps the SOPInstanceUID (PS3.3 C.12.1). A damaged copy never stands in for one that can be read. Where none can be
    read the first stays, so that its series is refused, and not taken without that image.
    """
    images: dict[tuple[object, ...], list[Header]] = {}
    for header in sorted(headers, key=lambda one: (one.path, one.index)):
        key = header.patient, header.series_uid, header.instance_uid, header.index, header.position
        images.setdefault(key, []).append(header)
    contents: dict[Path, str | Exception] = {}
    for header in (one for same in images.values() if len(same) > 1 for one in same):
        if header.path not in contents:
            contents[header.path] = _content(header.path)
    kept: list[Header] = []
    refused: dict[Path, Refusal] = {}
    for same in images.values():
        if len(same) == 1:
            kept += same
            continue
        distinct, damaged = _distinct(same, contents)
        kept += distinct or damaged[:1]
        for header in damaged if distinct else damaged[1:]:
            reason = str(reason_of(contents[header.path])).removeprefix(f"{header.path}: ")  # type: ignore[arg-type]
            refused[header.path] = Refusal(str(header.path), f"a copy of another file, but {reason}")
    return sorted(kept, key=lambda one: (one.path, one.index)), list(refused.values())


def _distinct(same: Sequence[Header], contents: dict[Path, str | Exception]) -> tuple[list[Header], list[Header]]:
    """The first of each content, and those whose pixels cannot be read."""
    damaged = [one for one in same if isinstance(contents[one.path], Exception)]
    distinct = {contents[one.path]: one for one in reversed(same) if one not in damaged}
    return list(distinct.values()), damaged


def _content(path: Path) -> str | Exception:
    """A hash of the stored pixels of all frames; the reason where they cannot be read."""
    try:
        dataset = open_image(path)
        digest = sha256()
        for index in range(int(dataset.get("NumberOfFrames") or 1)):
            (pixels,) = stored_pixels(path, dataset, [index])
            digest.update(f"{pixels.shape} {pixels.dtype.str}".encode())
            digest.update(pixels.tobytes())
        return digest.hexdigest()
    except Exception as error:  # readers raise what they like, and no file ends a run
        return error
