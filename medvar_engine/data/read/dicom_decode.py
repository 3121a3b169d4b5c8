"""`PixelFile`: decodes PixelData of all supported transfer syntaxes to the stored values of frames."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, JPEGExtended12Bit, RLELossless

from medvar_engine.data.read.code_stream import JPEG_SCAN, MOST_SCANS, begins_code_stream, code_stream
from medvar_engine.data.read.dicom_file import open_dicom, opened
from medvar_engine.data.read.dicom_stored import StoredPixels
from medvar_engine.data.read.header_limits import check_claim, check_packed
from medvar_engine.errors import MedvarError

# pylibjpeg decodes all JPEG syntaxes. Of the alternatives, GDCM ends the process on damaged files, CharLS (pyjpegls)
# may run forever, and Pillow supports few syntaxes. RLE is decoded by pydicom.
DECODER = "pylibjpeg"

_TOGETHER = 64  # frames that are decoded together
_WORDS = (8, 16, 32)  # supported values of BitsAllocated
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"  # tags in little endian

Frame = NDArray[np.integer]


class PixelFile:
    """The pixels of one file, ``stored`` as described by its header. Compressed data are read once and cached."""

    def __init__(self, path: Path, stored: StoredPixels) -> None:
        self.path = path
        self.stored = stored

    def frames(self, indices: Sequence[int]) -> list[Frame]:
        """Stored values (rows, columns) of the frames ``indices``, or of the tiles of a mosaic.

        Bits that are not stored are 0, or copy the sign. Raises `MedvarError` when they cannot be decoded.
        """
        if self.stored.tiles == 1:
            return self._frames(indices)
        (mosaic,) = self._frames([0])
        return [_tile(mosaic, self.stored.tiles, index) for index in indices]

    def _frames(self, indices: Sequence[int]) -> list[Frame]:
        stored = self.stored
        try:
            if stored.bits_allocated not in _WORDS or not 0 < stored.bits_stored <= stored.bits_allocated:
                raise ValueError(f"BitsAllocated is {stored.bits_allocated}, BitsStored {stored.bits_stored}")
            if UID(stored.syntax).is_encapsulated:
                return [_decoded(self._packed_frames[index], stored) for index in indices]
            return self._plain_frames(indices)
        except MedvarError:
            raise
        except Exception as error:  # decoders raise exceptions of any type
            raise MedvarError(
                f"{self.path}: the pixels cannot be decoded, the file may be truncated ({error})."
            ) from error

    @cached_property
    def content(self) -> bytes:
        """The bytes of PixelData, with following bytes if the length is undefined.

        Raises `MedvarError` when there is no PixelData.
        """
        element = self.stored.element
        if element is not None:
            with opened(self.path) as file:
                file.seek(element.offset)
                content = file.read(-1 if element.length is None else element.length)
            if element.length is not None and len(content) < element.length:
                raise MedvarError(f"{self.path}: its PixelData ends early; the file may be truncated.")
            return content
        dataset = open_dicom(self.path)
        if "PixelData" not in dataset:
            raise MedvarError(f"{self.path}: it has no PixelData; the file may be truncated.")
        return bytes(dataset.PixelData or b"")

    def digest(self) -> str:
        """A hash of the stored values of all frames."""
        found = sha256()
        for first in range(0, self.stored.frames, _TOGETHER):
            for frame in self._frames(range(first, min(first + _TOGETHER, self.stored.frames))):
                found.update(f"{frame.shape} {frame.dtype.str}".encode())
                found.update(frame.tobytes())
        return found.hexdigest()

    def _plain_frames(self, indices: Sequence[int]) -> list[Frame]:
        stored = self.stored
        sign, order = "i" if stored.signed else "u", ">" if stored.syntax == ExplicitVRBigEndian else "<"
        kind = np.dtype(f"{order}{sign}{stored.bits_allocated // 8}")
        area = stored.rows * stored.columns
        size = area * kind.itemsize
        claim = self.path, area * stored.frames, size * stored.frames
        if stored.element is None:
            check_claim(*claim, len(self.content))
            words = [self.content[index * size :][:size] for index in indices]
        else:
            with opened(self.path) as file:
                held = file.seek(0, os.SEEK_END) - stored.element.offset
                check_claim(*claim, held if stored.element.length is None else min(held, stored.element.length))
                words = []
                for index in indices:
                    file.seek(stored.element.offset + index * size)
                    words.append(file.read(size))
        frames = [np.frombuffer(one, kind).reshape(stored.rows, stored.columns) for one in words]
        return [_only_stored_bits(one, stored, stored.high_bit + 1 > stored.bits_stored) for one in frames]

    @cached_property
    def _packed_frames(self) -> list[bytes]:
        stored = self.stored
        # A compressed frame needs at least one byte.
        check_claim(self.path, stored.voxels, stored.frames, len(self.content))
        check_packed(self.path, stored.voxels, stored.unpacked_bytes, len(self.content))
        return _frames_of(self.content, stored)


def _tile(mosaic: Frame, tiles: int, index: int) -> Frame:
    """One of ``tiles`` × ``tiles`` parts of an image, counted in rows from the upper left."""
    rows, columns = (side // tiles for side in mosaic.shape)
    top, left = index // tiles * rows, index % tiles * columns
    return mosaic[top : top + rows, left : left + columns]


def _frames_of(content: bytes, stored: StoredPixels) -> list[bytes]:
    """The compressed frames of encapsulated pixel data (PS3.5 A.4), each joined from its fragments.

    The offset table is used only if the number of fragments is not sufficient. If it is wrong, frames are found by the
    beginnings of code streams.
    """
    table, *fragments = _items(content, marked=stored.element is not None and stored.element.length is None)
    if len(fragments) == stored.frames:
        return fragments
    if stored.frames == 1:
        return [b"".join(fragments)]
    starts = [0, *accumulate(8 + len(one) for one in fragments)]
    said = np.frombuffer(table[: len(table) // 4 * 4], "<u4").tolist()
    if len(said) != stored.frames or not set(said) <= set(starts[:-1]):
        said = [start for start, one in zip(starts, fragments, strict=False) if begins_code_stream(one)]
    if len(said) != stored.frames:
        raise ValueError(f"{len(fragments)} fragments do not make {stored.frames} frames")
    numbers = [starts.index(one) for one in said] + [len(fragments)]
    return [b"".join(fragments[first:last]) for first, last in pairwise(numbers)]


def _items(content: bytes, *, marked: bool) -> list[bytes]:
    """The items of encapsulated pixel data: the basic offset table, and the fragments.

    Their end is ``marked`` by a delimiter unless the file gives a length (against the standard). Raises `ValueError`
    when an item is incomplete or the delimiter is missing, which a decoder may not notice.
    """
    found: list[bytes] = []
    at = 0
    while (tag := content[at : at + 4]) == _ITEM:
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        if end > len(content):
            raise ValueError(f"fragment {len(found)} is cut short")
        found.append(content[at + 8 : end])
        at = end
    if not found or not (tag == _END or (at == len(content) and not marked)):
        raise ValueError("its fragments have no end mark")
    return found


def _decoded(frame: bytes, stored: StoredPixels) -> Frame:
    """The stored values of one compressed frame.

    If code stream and header differ in kind, bits or sign, the frame is decoded according to the code stream, and the
    resulting words are interpreted according to the header as far as they fit.
    """
    syntax, bits, signed = stored.syntax, stored.bits_allocated, False
    left_aligned = stored.high_bit + 1 > stored.bits_stored
    if syntax != RLELossless:
        stream = code_stream(frame)
        if stream is None:
            raise ValueError("a frame is neither JPEG, JPEG-LS nor JPEG 2000")
        if (stream.rows, stream.columns) != (stored.rows, stored.columns):  # checked before memory is allocated
            raise ValueError(
                f"a frame has {stream.rows} × {stream.columns} pixels, its header says {stored.rows} × {stored.columns}"
            )
        if stream.syntax == JPEGExtended12Bit and frame.count(JPEG_SCAN) > MOST_SCANS:
            raise ValueError(f"a frame has more than {MOST_SCANS} scans, each of which is decoded in whole")
        if stream.samples != 1:
            raise ValueError(f"a frame has {stream.samples} samples a pixel, its header says one")
        syntax, signed = stream.syntax, stream.signed
        bits = next(width for width in _WORDS if stream.precision <= width)
        left_aligned = (
            left_aligned and stream.precision > stored.bits_stored
        )  # otherwise the words were shifted already
        if stream.precision > stored.bits_allocated:  # no space for unused bits, so the header is wrong
            stored, left_aligned = replace(stored, bits_allocated=bits, bits_stored=stream.precision), False
    options: Any = {
        "rows": stored.rows,
        "columns": stored.columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": bits,
        "bits_stored": bits,
        "pixel_representation": int(signed),
        "decoding_plugin": "" if syntax == RLELossless else DECODER,
        # pydicom takes the sign from the bits of the code stream, GDCM and DCMTK from BitsStored, which may be more.
        "apply_jls_sign_correction": False,
        "apply_j2k_sign_correction": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array, _ = get_decoder(UID(syntax)).as_array(encapsulate([frame], has_bot=False), index=0, **options)
    size = stored.bits_allocated // 8
    words = array.astype(f"u{size}").view(f"{'i' if stored.signed else 'u'}{size}")
    return _only_stored_bits(words, stored, left_aligned)


def _only_stored_bits(frame: Frame, stored: StoredPixels, left_aligned: bool) -> Frame:
    """The frame without bits outside BitsStored, such as overlays (PS3.5 8.1.1)."""
    frame = frame.astype(frame.dtype.newbyteorder("="), copy=False)
    if stored.bits_stored == stored.bits_allocated:
        return frame
    words = frame.view(f"u{frame.dtype.itemsize}")
    if left_aligned:
        words = words >> np.asarray(stored.high_bit + 1 - stored.bits_stored, words.dtype)
    up = np.asarray(stored.bits_allocated - stored.bits_stored, words.dtype)
    raised = words << up
    return np.asarray(raised.view(frame.dtype) >> up.astype(frame.dtype))
