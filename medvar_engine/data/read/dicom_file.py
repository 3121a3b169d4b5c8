"""Opens one DICOM file, possibly damaged. All errors of pydicom become a `MedvarError` that names the file."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import pydicom
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from medvar_engine.data.read.header_limits import most_unpacked
from medvar_engine.errors import MedvarError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
PACKED_SUFFIX = ".dcm.gz"

T = TypeVar("T")

_PREAMBLE = 128
_PIXEL_DATA = 0x7FE00010
_PIXELS = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)  # pixel data as floats, doubles and integers
_UNDEFINED = 0xFFFFFFFF  # the length of an element that ends with a delimiter
LARGEST_INFLATED = 2**30  # bytes; a deflated file is inflated completely in memory
_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
_PLAIN = ExplicitVRLittleEndian.encode().ljust(len(_DEFLATED), b"\0")
_META = b"\x02\0\0\0UL\x04\0"  # the group length of the file meta information, with which it begins
_META_PART = 2048  # bytes in which the file meta information lies
_PIECE = 2**16
_META_END = _PREAMBLE + 4 + len(_META) + 4  # where what that length counts begins
_FEW_ELEMENTS = 100_000  # a header may always have so many, and one more for every `_ELEMENT_BYTES` bytes of the file
_ELEMENT_BYTES = 16  # an enhanced image has about 140 in 3 kB for each frame
_ITEM_ELEMENTS = 4  # an item of a sequence takes the memory of about four elements
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # their tag, little and big endian
_LONGEST_VALUE = 2**13  # bytes of a value that is no sequence; the longest that is needed has about a hundred


def looks_like_dicom(path: Path) -> bool:
    """Whether the file has the DICOM prefix or a suffix of DICOM files. DICOMDIR is an index, not an image.

    Raises `MedvarError` when it cannot be opened.
    """
    if path.name.upper() == "DICOMDIR":
        return False
    if _is_packed(path) or path.suffix.lower() in DICOM_SUFFIXES:
        return True
    return _beginning(path, _PREAMBLE + 4)[_PREAMBLE:] == b"DICM"


@dataclass(frozen=True, slots=True)
class PixelElement:
    """The position of the value of PixelData, and its number of bytes; None if it ends with a delimiter."""

    offset: int
    length: int | None


def open_dicom(path: Path, *, largest: int = LARGEST_INFLATED, most_elements: int | None = None) -> Dataset:
    """Read the data set of a file.

    Raises `MedvarError` if that fails, if a deflated or gzip file has more than ``largest`` bytes unpacked, or if it
    has more than ``most_elements``; by default as many as a file of its size may have.
    """
    with _bounded(path, largest, most_elements) as file:
        return _read(path, lambda: pydicom.dcmread(file, force=True))


def open_header(
    path: Path, tags: Sequence[int], *, largest: int = LARGEST_INFLATED
) -> tuple[Dataset, PixelElement | None]:
    """Read the ``tags`` of a file, and the position of its pixels in `opened`; None if it has no pixels.

    Raises `MedvarError` as `open_dicom` does.
    """
    with _bounded(path, largest) as file:
        return _read(path, lambda: _header(file, tags))


def opened(path: Path, *, largest: int = LARGEST_INFLATED) -> BinaryIO:
    """The bytes of a file, unpacked if gzip or the deflated transfer syntax packed it.

    Raises `MedvarError` if it cannot be opened or unpacked.
    """
    return io.BufferedReader(_raw(path, largest))


def _bounded(path: Path, largest: int, most_elements: int | None = None) -> BinaryIO:
    """The same, for pydicom to read."""
    return _Bounded(_raw(path, largest), path, most_elements or _most_elements(_size(path)))


def _raw(path: Path, largest: int) -> io.RawIOBase:
    largest = min(largest, most_unpacked(_size(path)))
    if _is_packed(path):
        return cast(io.RawIOBase, _Unpacked(_unpacked(path, largest)))
    try:
        file = io.FileIO(path)
        beginning = file.read(_META_PART)
        file.seek(0)
    except OSError as error:
        raise MedvarError(f"{path}: cannot be opened ({error.strerror}).") from error
    if _DEFLATED not in beginning or not beginning[_PREAMBLE + 4 :].startswith(_META):
        return file
    with file:
        return cast(io.RawIOBase, _Unpacked(_inflated(path, file, beginning, largest)))


class _Unpacked(io.BytesIO):
    """A file in memory. pydicom expects that whatever is buffered has a name."""

    name = ""


class _Bounded(io.BufferedReader):
    """A file for pydicom, of which at most as many elements are read as one of its size may have.

    Elements take much more memory than bytes. pydicom reads the eight bytes of tag and length of each element at once.
    """

    def __init__(self, raw: io.RawIOBase, path: Path, most_elements: int) -> None:
        super().__init__(raw)
        self._path, self._most, self._elements = path, most_elements, 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as from any file. Raises `MedvarError` for too many elements, or if pydicom would inflate the rest."""
        if size is None or size < 0:
            raise MedvarError(f"{self._path}: it is deflated, but its file meta information is not as it should be.")
        content = super().read(size)
        if size == 8:
            self._elements += _ITEM_ELEMENTS if content.startswith(_ITEMS) else 1
            if self._elements > self._most:
                raise MedvarError(f"{self._path}: its header has more than {self._most} elements.")
        return content


def _most_elements(size: int) -> int:
    return _FEW_ELEMENTS + size // _ELEMENT_BYTES


def _header(file: BinaryIO, tags: Sequence[int]) -> tuple[Dataset, PixelElement | None]:
    found: list[PixelElement] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag == _PIXEL_DATA:
            found.append(PixelElement(file.tell(), None if length == _UNDEFINED else length))
        return tag in _PIXELS

    dataset = read_partial(file, at_pixels, force=True, specific_tags=list(tags))
    return dataset, found[0] if found else None


def _read(path: Path, read: Callable[[], T]) -> T:
    try:
        with warnings.catch_warnings(), disable_value_validation():
            # pydicom only warns of a truncated file, and returns it without its pixels or last values.
            warnings.simplefilter("ignore")
            return read()
    except MedvarError:
        raise
    except Exception as error:  # pydicom raises exceptions of many types for damaged files
        if isinstance(error.__context__, MedvarError):  # raised by `_Bounded`, and wrapped by pydicom
            raise error.__context__ from None
        raise MedvarError(f"{path}: cannot be read, the file may be truncated ({error}).") from error


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(PACKED_SUFFIX)


def values_of(value: object) -> list[object]:
    """A DICOM value of any multiplicity as a list; an empty list for a missing value."""
    if value is None or isinstance(value, str | bytes):
        return [] if value is None else [value]
    return list(value) if isinstance(value, Iterable) else [value]


def floats_of(value: object) -> tuple[float, ...] | None:
    """A DICOM value as numbers; None if it is missing or empty."""
    values = values_of(value)
    return tuple(float(str(item)) for item in values) if values and all(str(item) for item in values) else None


def value_of(dataset: Dataset, keyword: str | int) -> Any:
    """The value of an attribute or element, or None. Raises `MedvarError` for one that is far too long.

    `Dataset.get` takes many times as long: it looks for a Python attribute of that name first.
    """
    tag = _tag(keyword)
    if tag not in dataset:
        return None
    raw = dataset.get_item(tag)
    if isinstance(raw, RawDataElement) and raw.value is not None and len(raw.value) > _LONGEST_VALUE:
        _check_long(tag, raw.value)
    return dataset[tag].value


def _check_long(tag: BaseTag, content: bytes) -> None:
    """Raise `MedvarError` for a long value, unless it is a sequence of not too many items."""
    if not dictionary_has_tag(tag) or dictionary_VR(tag) != "SQ":
        raise MedvarError(f"the element {tag} has {len(content)} bytes, at most {_LONGEST_VALUE} are expected")
    if _ITEM_ELEMENTS * sum(map(content.count, _ITEMS)) > _most_elements(len(content)):
        raise MedvarError(f"the sequence {tag} has too many items for its {len(content)} bytes")


def has_attribute(dataset: Dataset, keyword: str) -> bool:
    """Whether a DICOM data set has an attribute, even an empty one."""
    return _tag(keyword) in dataset


@cache
def _tag(keyword: str | int) -> BaseTag:
    return Tag(keyword)


def modality_of(dataset: Dataset) -> str:
    """The modality, e.g. ``CT`` or ``MR``; empty if unknown."""
    return str(value_of(dataset, "Modality") or "").strip().upper()


def _unpacked(path: Path, largest: int) -> bytes:
    """The bytes of a gzip file, at most ``largest``."""
    try:
        with gzip.open(path) as file:
            content = file.read(largest + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MedvarError(f"{path}: cannot be unpacked, it may be truncated ({error}).") from error
    if len(content) > largest:
        raise MedvarError(f"{path}: its unpacked content is larger than {largest} bytes.")
    if _DEFLATED in content[:_META_PART]:
        raise MedvarError(f"{path}: it is compressed twice, by gzip and by the deflated transfer syntax.")
    return content


def _inflated(path: Path, file: io.FileIO, beginning: bytes, largest: int) -> bytearray:
    """A file of the deflated transfer syntax (PS3.5 A.5) as one of the plain syntax."""
    start = _META_END + int.from_bytes(beginning[_META_END - 4 : _META_END], "little")
    content = bytearray(beginning[:start].replace(_DEFLATED, _PLAIN))
    inflater, end = zlib.decompressobj(-zlib.MAX_WBITS), start + largest
    try:
        file.seek(start)
        packed = file.read(_PIECE)
        while packed and not inflater.eof:
            content += inflater.decompress(packed, _PIECE)
            packed = inflater.unconsumed_tail or file.read(_PIECE)
            if len(content) > end:
                raise MedvarError(f"{path}: its inflated content is larger than {largest} bytes.")
    except (OSError, zlib.error) as error:
        raise MedvarError(f"{path}: cannot be inflated, it may be truncated ({error}).") from error
    if not inflater.eof:
        raise MedvarError(f"{path}: cannot be inflated, it may be truncated (its end is missing).")
    return content


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise MedvarError(f"{path}: cannot be opened ({error.strerror}).") from error


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise MedvarError(f"{path}: cannot be opened ({error.strerror}).") from error
