"""Checks the text headers of NRRD and MetaImage before ITK reads the file.

ITK allocates the memory that a header claims and opens any data file that it names, so both are checked here first.
Fields are those of https://teem.sourceforge.net/nrrd/format.html and https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medvar_engine.data.read.header_limits import SCAN_RATIO, check_claim, check_packed
from medvar_engine.errors import MedvarError

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")

_LONGEST_HEADER = 2**20
_BYTES_OF_META = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4}
_BYTES_OF_META |= {"LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_BYTES_OF_NRRD = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
    "float": 4,
}
_PACKED_OF_NRRD = {
    **dict.fromkeys(("raw", "txt", "text", "ascii", "hex"), False),
    **dict.fromkeys(("gz", "gzip", "bz2", "bzip2"), True),
}


# NRRD's space → whether it is a patient coordinate system; scanner-xyz and 3D-right-handed are not.
_PATIENT_SPACES = {"lps", "ras", "las"} | {
    f"{side}-{front}-superior" for side, front in (("left", "posterior"), ("right", "anterior"), ("left", "anterior"))
}
_MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "millimetre": 1.0, "cm": 10.0, "m": 1000.0, "meter": 1000.0}
_MILLIMETRES |= dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre"), 0.001)
_MILLIMETRES |= {"nm": 1e-6}


@dataclass(frozen=True, slots=True)
class StatedGeometry:
    """Whether a header has the orientation and the size of voxels, and the unit of lengths in mm."""

    orientation: bool
    spacing: bool
    millimetres: float


@dataclass(frozen=True, slots=True)
class _Claim:
    """The data that a header claims: shape, bytes per voxel, whether they are compressed, and their file."""

    shape: tuple[int, ...]
    voxel_bytes: int
    packed: bool
    data_file: str | None


def data_files(path: Path, ratio: int = SCAN_RATIO) -> tuple[Path, ...]:
    """The data file of a detached header, after all checks; empty if the voxels follow the header.

    Raises `MedvarError` when the header is damaged, claims more voxels than the file can hold, or names a data file
    that is not a plain file in or below its own folder.
    """
    try:
        fields = _fields(path)
        claim = _nrrd(path, fields) if path.name.lower().endswith(NRRD_SUFFIXES) else _meta(path, fields)
    except (ValueError, OverflowError) as error:
        raise MedvarError(f"{path}: its header is malformed ({error}); it may be truncated.") from error
    except KeyError as error:
        raise MedvarError(f"{path}: its header lacks or does not know {error}; it may be truncated.") from error
    data = None if claim.data_file is None else _beside(path, claim.data_file)
    if len(claim.shape) not in (3, 4) or min(claim.shape) < 1:
        raise MedvarError(f"{path}: a volume of 3 dimensions is expected, its header claims the shape {claim.shape}.")
    voxels = math.prod(claim.shape)
    held, claimed = (data or path).stat().st_size, voxels * claim.voxel_bytes
    if claim.packed:
        check_packed(path, voxels, claimed, held, ratio)
    else:
        check_claim(path, voxels, claimed, held)
    return () if data is None else (data,)


def stated_geometry(path: Path) -> StatedGeometry:
    """The geometry information of a header. Raises `MedvarError` for different or unknown units."""
    fields = _fields(path)
    if not path.name.lower().endswith(NRRD_SUFFIXES):
        matrix = any(name in fields for name in ("transformmatrix", "rotation", "orientation"))
        spacing = any(name in fields for name in ("elementspacing", "elementsize"))
        return StatedGeometry(matrix, spacing, 1.0)
    directions = _known(fields.get("space directions", ""))
    space = fields.get("space", "").lower().removesuffix("-time").removesuffix("t")
    sides = directions or [one for one in fields.get("spacings", "").split() if one.lower() != "nan"]
    return StatedGeometry(space in _PATIENT_SPACES and len(directions) >= 3, len(sides) >= 3, _unit(path, fields))


def _known(directions: str) -> list[str]:
    """The vectors of ``space directions``, without ``none``, which marks a non-spatial axis."""
    return re.findall(r"\([^)]*\)", directions)


def _unit(path: Path, fields: Mapping[str, str]) -> float:
    """The unit of lengths in mm, from ``space units`` or else ``units`` (in quotes); mm by default."""
    names = re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))[:3]
    found = {name.strip().lower() for name in names if name.strip()}
    unknown = found - set(_MILLIMETRES)
    units = {_MILLIMETRES.get(name, 1.0) for name in found}
    if unknown or len(units) > 1:
        raise MedvarError(f"{path}: its lengths are in {', '.join(sorted(found))}; mm, cm, m, um or nm are expected.")
    return units.pop() if units else 1.0


def _fields(path: Path) -> dict[str, str]:
    """Field → value of the header, with lower-case names."""
    nrrd = path.name.lower().endswith(NRRD_SUFFIXES)
    try:
        with path.open("rb") as file:
            block = file.read(_LONGEST_HEADER)
    except OSError as error:
        raise MedvarError(f"{path}: cannot be opened ({error.strerror}).") from error
    if nrrd and not block.startswith(b"NRRD000"):
        raise MedvarError(f"{path}: it is not NRRD, or truncated: it does not begin with NRRD000.")
    fields: dict[str, str] = {}
    for number, line in enumerate(block.split(b"\n")):
        text = line.decode("latin-1").rstrip("\r")
        if nrrd and (number == 0 or text.startswith("#") or ":=" in text):
            continue
        if nrrd and not text:
            break
        separator = ":" if nrrd or "=" not in text else "="
        name, found, value = text.partition(separator)
        name = name.strip().lower()
        if not found:
            raise ValueError(f"line {number + 1} is not a field")
        if name in fields:
            raise ValueError(f"{name} is said twice")
        fields[name] = value.strip()
        if not nrrd and name == "elementdatafile":
            break
    return fields


def _nrrd(path: Path, fields: dict[str, str]) -> _Claim:
    shape = tuple(int(side) for side in fields["sizes"].split())
    if len(shape) != int(fields["dimension"]):
        raise ValueError(f"dimension is {fields['dimension']}, but sizes are {fields['sizes']}")
    encoding = fields["encoding"].lower()
    text = encoding in ("txt", "text", "ascii")
    data_file = fields.get("data file", fields.get("datafile"))
    for skip in ("byte skip", "byteskip", "line skip", "lineskip"):
        if not -1 <= int(fields.get(skip, 0)) <= _LONGEST_HEADER:
            raise ValueError(f"{skip} is {fields[skip]}")
    return _Claim(shape, 1 if text else _BYTES_OF_NRRD[fields["type"].lower()], _PACKED_OF_NRRD[encoding], data_file)


def _meta(path: Path, fields: dict[str, str]) -> _Claim:
    shape = tuple(int(side) for side in fields["dimsize"].split())
    if len(shape) != int(fields["ndims"]):
        raise ValueError(f"NDims is {fields['ndims']}, but DimSize is {fields['dimsize']}")
    if fields.get("binarydata", "True").lower() not in ("true", "1"):
        raise ValueError("voxels in text are not read; BinaryData = True is expected")
    packed = fields.get("compresseddata", "False").lower() not in ("false", "0")
    size = path.stat().st_size
    for name in ("compresseddatasize", "headersize"):
        if not -1 <= int(fields.get(name, 0)) <= 2**40:
            raise ValueError(f"{name} is {fields[name]}")
    data_file = fields["elementdatafile"]
    local = data_file.upper() == "LOCAL"
    if local and int(fields.get("compresseddatasize", 0)) > size:
        raise ValueError(f"CompressedDataSize is {fields['compresseddatasize']}, more than the file has")
    channels = int(fields.get("elementnumberofchannels", 1))
    if channels != 1:
        raise MedvarError(f"{path}: one value per voxel is expected, but it has {channels}.")
    voxel_bytes = _BYTES_OF_META[fields["elementtype"].upper().removeprefix("MET_")]
    return _Claim(shape, voxel_bytes, packed, None if local else data_file)


def _beside(path: Path, name: str) -> Path:
    """The data file, which must be a regular file in or below the header's folder, without links."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        raise MedvarError(f"{path}: its data file {name!r} does not lie in the folder of the header.")
    if "%" in name or name.upper().startswith("LIST"):
        raise MedvarError(f"{path}: its voxels lie in several files ({name!r}); one data file is expected.")
    data = path.parent / name
    if not data.is_file():
        raise MedvarError(f"{path}: its data file {name!r} is missing.")
    if data.resolve() != path.parent.resolve() / name:
        raise MedvarError(f"{path}: its data file {name!r} is a link, which is not followed.")
    return data
