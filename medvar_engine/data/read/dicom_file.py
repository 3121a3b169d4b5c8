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
from typing import Any, BinaryIO, TypeVar

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medvar_engine.errors import MedvarError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
PACKED_SUFFIX = ".dcm.gz"

T = TypeVar("T")

_PREAMBLE = 128
_PIXEL_DATA = 0x7FE00010
_PIXELS = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)  # pixel data as floats, doubles and integers
_UNDEFINED = 0xFFFFFFFF  # the length of an element that ends with a delimiter
LARGEST_INFLATED = 2**30  # bytes; pydicom inflates a deflated file completely in memory


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


def open_dicom(path: Path, *, largest: int = LARGEST_INFLATED) -> Dataset:
    """Read the data set of a file.

    Raises `MedvarError` if that fails, or if a deflated or gzip file has more than ``largest`` bytes unpacked.
    """
    with _bounded(path, largest) as file:
        return _read(path, lambda: pydicom.dcmread(file, force=True))


def open_header(
    path: Path, tags: Sequence[int], *, largest: int = LARGEST_INFLATED
) -> tuple[Dataset, PixelElement | None]:
    """Read the ``tags`` of a file, and the position of its pixels in `opened`; None if it is deflated or has no pixels.

    Raises `MedvarError` as `open_dicom` does.
    """
    with _bounded(path, largest) as file:
        dataset, element = _read(path, lambda: _header(file, tags))
    deflated = value_of(dataset.file_meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    return dataset, None if deflated else element


def opened(path: Path, *, largest: int = LARGEST_INFLATED) -> BinaryIO:
    """The bytes of a file, unpacked if it is a gzip file. Raises `MedvarError` if it cannot be opened."""
    return _open(path, largest, lambda: path.open("rb"))


def _bounded(path: Path, largest: int) -> BinaryIO:
    """The content of a file, unpacked if it is a gzip file, as a file object for pydicom."""
    return _open(path, largest, lambda: _Bounded(path, largest))


def _open(path: Path, largest: int, plain: Callable[[], BinaryIO]) -> BinaryIO:
    try:
        return io.BytesIO(_unpacked(path, largest)) if _is_packed(path) else plain()
    except OSError as error:
        raise MedvarError(f"{path}: cannot be opened ({error.strerror}).") from error


class _Bounded(io.BufferedReader):
    """A file object that can be read to its end only if that inflates to at most ``largest`` bytes.

    pydicom reads the rest of a file at once to inflate it, in memory, and in no other case.
    """

    def __init__(self, path: Path, largest: int) -> None:
        super().__init__(io.FileIO(path))
        self._path, self._largest = path, largest

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as from any file. Raises `MedvarError` if the rest inflates to more than the limit."""
        if size is None or size < 0:
            start = self.tell()
            self._check()
            self.seek(start)
        return super().read(size)

    def _check(self) -> None:
        inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            packed = super().read(2**16)
            while packed and not inflater.eof:
                inflated += len(inflater.decompress(packed, 2**20))
                packed = inflater.unconsumed_tail or super().read(2**16)
                if inflated > self._largest:
                    raise MedvarError(f"{self._path}: its inflated content is larger than {self._largest} bytes.")
        except zlib.error as error:
            raise MedvarError(f"{self._path}: cannot be inflated, it may be truncated ({error}).") from error


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


def value_of(dataset: Dataset, keyword: str) -> Any:
    """The value of an attribute, or None.

    `Dataset.get` takes many times as long: it looks for a Python attribute of that name first.
    """
    tag = _tag(keyword)
    return dataset[tag].value if tag in dataset else None


def has_attribute(dataset: Dataset, keyword: str) -> bool:
    """Whether a DICOM data set has an attribute, even an empty one."""
    return _tag(keyword) in dataset


@cache
def _tag(keyword: str) -> BaseTag:
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
    if DeflatedExplicitVRLittleEndian.encode() in content[:2048]:
        raise MedvarError(f"{path}: it is compressed twice, by gzip and by the deflated transfer syntax.")
    return content


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise MedvarError(f"{path}: cannot be opened ({error.strerror}).") from error
