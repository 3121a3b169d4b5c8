"""Reads kind, size and bits from the first markers of JPEG, JPEG-LS, JPEG 2000 and HTJ2K, without decoding."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless

JPEG_SCAN = b"\xff\xda"  # begins a scan; between markers the byte after ff is 0 or a restart
MOST_SCANS = 100  # of a JPEG; each is decoded in whole, and progressive files have about ten
_JPEG_START, _JPEG_2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
# Start of frame, all kinds of JPEG (ISO/IEC 10918-1, table B.1: without DHT, JPG and DAC), and of JPEG-LS.
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
_KINDS = {0xC0: JPEGBaseline8Bit, 0xC3: JPEGLosslessSV1, 0xF7: JPEGLSLossless}
_BOXES = 4096  # bytes to skip for the boxes of a JP2 file, which DICOM does not allow before the code stream


@dataclass(frozen=True, slots=True)
class CodeStream:
    """A transfer syntax that selects the decoder, sides in pixels, bits per sample, and samples per pixel.

    ``signed`` is whether samples are signed, which only JPEG 2000 records.
    """

    syntax: str
    rows: int
    columns: int
    precision: int
    samples: int
    signed: bool = False


def code_stream(frame: bytes) -> CodeStream | None:
    """The code stream of a frame; None for other data such as RLE. Raises `ValueError` when it is damaged."""
    if frame.startswith(_JPEG_START):
        return _jpeg(frame)
    start = frame.find(_JPEG_2000_START, 0, _BOXES)
    if start < 0:
        return None
    # SIZ (ISO/IEC 15444-1, A.5.1): Xsiz, Ysiz, XOsiz, YOsiz begin 8 bytes after the start of the code stream, Csiz and
    # Ssiz of the first component 40 and 42 bytes after it.
    if len(frame) < start + 43:
        raise ValueError("a JPEG 2000 that ends in its first marker")
    numbers = [int.from_bytes(frame[start + at : start + at + 4], "big") for at in (8, 12, 16, 20)]
    samples, depth = int.from_bytes(frame[start + 40 : start + 42], "big"), frame[start + 42]
    sides = numbers[1] - numbers[3], numbers[0] - numbers[2]
    return CodeStream(JPEG2000, *sides, (depth & 0x7F) + 1, samples, bool(depth & 0x80))


def begins_code_stream(fragment: bytes) -> bool:
    """Whether a fragment of encapsulated pixel data is the first one of a frame."""
    return fragment.startswith((_JPEG_START + b"\xff", _JPEG_2000_START, b"\0\0\0\x0cjP"))


def _jpeg(frame: bytes) -> CodeStream:
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _START_OF_FRAME:
            rows, columns = (int.from_bytes(frame[at + n : at + n + 2], "big") for n in (5, 7))
            return CodeStream(_KINDS.get(marker, JPEGExtended12Bit), rows, columns, frame[at + 4], frame[at + 9])
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without a frame")
