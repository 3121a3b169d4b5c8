"""Open one DICOM file, however damaged. Whatever pydicom raises comes out as one kind of error, naming the file."""

from __future__ import annotations

import gzip
import warnings
import zlib
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medvar_engine.errors import MedvarError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
PACKED_SUFFIX = ".dcm.gz"

_PREAMBLE = 128
LARGEST_INFLATED = 2**30  # pydicom inflates a deflated file as a whole, in memory


def looks_like_dicom(path: Path) -> bool:
    """Whether the file has DICOM's magic word or a suffix of DICOM files. DICOMDIR is an index, not an image.

    Raises `MedvarError` when it cannot be opened.
    """
    if path.name.upper() == "DICOMDIR":
        return False
    if path.name.lower().endswith(PACKED_SUFFIX) or path.suffix.lower() in DICOM_SUFFIXES:
        return True
    return _beginning(path, _PREAMBLE + 4)[_PREAMBLE:] == b"DICM"


def open_dicom(path: Path, tags: Sequence[str | int] | None = None, *, largest: int = LARGEST_INFLATED) -> Dataset:
    """The data set of a file; with ``tags``, only these and without pixels.

    Raises `MedvarError`, also where a file that is deflated or packed by gzip has more than ``largest`` bytes unpacked.
    """
    packed = path.name.lower().endswith(PACKED_SUFFIX)
    if not packed:
        _check_inflated(path, largest)
    source = BytesIO(_unpacked(path, largest)) if packed else path
    try:
        with warnings.catch_warnings(), disable_value_validation():
            # A cut file is only warned of, and comes back without its pixels or the whole of its values.
            warnings.simplefilter("ignore")
            if tags is None:
                return pydicom.dcmread(source, force=True)
            return pydicom.dcmread(source, force=True, stop_before_pixels=True, specific_tags=list(tags))  # type: ignore[arg-type]
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise MedvarError(f"{path}: cannot be read, the file may be truncated ({error}).") from error


def values_of(value: object) -> list[object]:
    """A DICOM value of any multiplicity as a list; nothing is an empty list."""
    if value is None or isinstance(value, str | bytes):
        return [] if value is None else [value]
    return list(value) if isinstance(value, Iterable) else [value]


def floats_of(value: object) -> tuple[float, ...] | None:
    """A DICOM value as numbers, or None where it is missing or empty."""
    values = values_of(value)
    return tuple(float(str(item)) for item in values) if values and all(str(item) for item in values) else None


def modality_of(dataset: Dataset) -> str:
    """``CT``, ``MR``, …; empty where it is not said."""
    return str(dataset.get("Modality") or "").strip().upper()


def _check_inflated(path: Path, largest: int) -> None:
    """Refuse a file in the deflated transfer syntax that inflates without end."""
    beginning = _beginning(path, 2048)
    if not _is_deflated(path):
        return
    # (0002,0000), UL, 4 bytes: how long the rest of the meta information is. The deflated part follows it.
    if beginning[_PREAMBLE + 4 : _PREAMBLE + 12] != b"\x02\x00\x00\x00UL\x04\x00":
        raise MedvarError(f"{path}: it is deflated, but FileMetaInformationGroupLength is missing.")
    start = _PREAMBLE + 16 + int.from_bytes(beginning[_PREAMBLE + 12 : _PREAMBLE + 16], "little")
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        with path.open("rb") as file:
            file.seek(start)
            packed = file.read(2**16)
            while packed and not inflater.eof:
                inflated += len(inflater.decompress(packed, 2**20))
                packed = inflater.unconsumed_tail or file.read(2**16)
                if inflated > largest:
                    raise MedvarError(f"{path}: inflated it is larger than {largest} bytes.")
    except (OSError, zlib.error) as error:
        raise MedvarError(f"{path}: cannot be inflated, it may be truncated ({error}).") from error


def _is_deflated(path: Path) -> bool:
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            return str(read_file_meta_info(path).get("TransferSyntaxUID")) == DeflatedExplicitVRLittleEndian
    except Exception:  # pydicom raises many kinds on damaged files, and will not read this one either
        return False


def _unpacked(path: Path, largest: int) -> bytes:
    """The bytes of a file that gzip packed, at most ``largest``."""
    try:
        with gzip.open(path) as file:
            content = file.read(largest + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MedvarError(f"{path}: cannot be unpacked, it may be truncated ({error}).") from error
    if len(content) > largest:
        raise MedvarError(f"{path}: unpacked it is larger than {largest} bytes.")
    if DeflatedExplicitVRLittleEndian.encode() in content[:2048]:
        raise MedvarError(f"{path}: it is packed twice, by gzip and in the deflated transfer syntax.")
    return content


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise MedvarError(f"{path}: cannot be opened ({error.strerror}).") from error
