"""How large an image is that JPEG, JPEG-LS, JPEG 2000 or HTJ2K packs: from its first markers, without decoding."""

from __future__ import annotations

_JPEG_START, _JPEG_2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
# Start of frame, all kinds of JPEG (ISO/IEC 10918-1, table B.1: without DHT, JPG and DAC), and of JPEG-LS.
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}


def size_of(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a code stream; None for other bytes, RLE for one. Raises `ValueError` when it is damaged."""
    if frame.startswith(_JPEG_START):
        return _jpeg(frame)
    start = frame.find(_JPEG_2000_START, 0, 4096)  # the boxes of a JP2 file, which should not be there, come before
    if start < 0:
        return None
    # SIZ (ISO/IEC 15444-1, A.5.1): Xsiz, Ysiz, XOsiz, YOsiz begin 8 bytes after the marker of the code stream's start.
    numbers = [int.from_bytes(frame[start + at : start + at + 4], "big") for at in (8, 12, 16, 20)]
    return numbers[1] - numbers[3], numbers[0] - numbers[2]


def precision_of(frame: bytes) -> int | None:
    """Bits a sample of a code stream; None for other bytes. Raises `ValueError` when it is damaged."""
    if frame.startswith(_JPEG_START):
        return frame[_start_of_frame(frame) + 4]
    start = frame.find(_JPEG_2000_START, 0, 4096)
    return None if start < 0 or len(frame) < start + 43 else (frame[start + 42] & 0x7F) + 1  # Ssiz


def _jpeg(frame: bytes) -> tuple[int, int]:
    at = _start_of_frame(frame)
    return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")


def _start_of_frame(frame: bytes) -> int:
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _START_OF_FRAME:
            return at
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without a frame")
