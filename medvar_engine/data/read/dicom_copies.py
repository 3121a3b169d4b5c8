"""Removes repeated DICOM files: the same image in several files is used once; different images are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from medvar_engine.data.read.dicom_decode import PixelFile
from medvar_engine.data.read.dicom_header import Header
from medvar_engine.data.read.refusal import Refusal, reason_of


def without_copies(headers: Iterable[Header]) -> tuple[list[Header], list[Refusal]]:
    """The headers without repeated files, and refusals of damaged copies.

    Copies have the same series, SOPInstanceUID, position and pixels; the transfer syntax may differ, because lossless
    compression keeps the SOPInstanceUID (PS3.3 C.12.1). A readable copy is preferred to a damaged one. If none is
    readable, the first is kept, so that its series is refused and not used without that image.
    """
    images: dict[tuple[object, ...], list[Header]] = {}
    for header in sorted(headers, key=lambda one: (one.path, one.index)):
        key = header.patient, header.series_uid, header.instance_uid, header.index, header.position
        images.setdefault(key, []).append(header)
    contents = _Contents()
    kept: list[Header] = []
    refused: dict[Path, Refusal] = {}
    for same in images.values():
        distinct, damaged = _distinct(same, contents) if len(same) > 1 else (same, [])
        kept += distinct or damaged[:1]
        for header in damaged if distinct else damaged[1:]:
            reason = str(contents.damage(header)).removeprefix(f"{header.path}: ")
            refused[header.path] = Refusal(str(header.path), f"a copy of another file, but {reason}")
    return sorted(kept, key=lambda one: (one.path, one.index)), list(refused.values())


def _distinct(same: Sequence[Header], contents: _Contents) -> tuple[list[Header], list[Header]]:
    """The first file of each content, and files with unreadable pixels."""
    if len({contents.as_stored(one) for one in same}) == 1:
        return [same[0]], []  # unreadable pixels are found when they are read
    damaged = [one for one in same if contents.damage(one) is not None]
    distinct = {contents.decoded(one): one for one in reversed(same) if one not in damaged}
    return list(reversed(distinct.values())), damaged


class _Contents:
    """Hashes of the stored pixels of files, and of decoded pixels, which are computed only if the former differ."""

    def __init__(self) -> None:
        self._stored: dict[Path, object] = {}
        self._decoded: dict[Path, str | Exception] = {}

    def as_stored(self, header: Header) -> object:
        if header.path not in self._stored:
            about = header.stored
            try:
                content = sha256(PixelFile(header.path, about).content).hexdigest()
            except Exception as error:  # libraries raise exceptions of any type, and no file may end a run
                content = repr(error)
            how = about.syntax, about.rows, about.columns, about.frames, about.bits_allocated, about.bits_stored
            self._stored[header.path] = (content, *how, about.high_bit, about.signed)
        return self._stored[header.path]

    def decoded(self, header: Header) -> str | Exception:
        if header.path not in self._decoded:
            try:
                self._decoded[header.path] = PixelFile(header.path, header.stored).digest()
            except Exception as error:
                self._decoded[header.path] = error
        return self._decoded[header.path]

    def damage(self, header: Header) -> str | None:
        """The reason why the pixels of a file cannot be read; None if they can."""
        found = self.decoded(header)
        return reason_of(found) if isinstance(found, Exception) else None
