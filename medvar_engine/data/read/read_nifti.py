"""Reads NIfTI-1 and NIfTI-2 with nibabel: ``.nii``, ``.nii.gz``, and the pair ``.hdr`` and ``.img``."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.read.assumed_geometry import NOTHING, Assumed
from medvar_engine.data.read.header_limits import DEFLATE_RATIO, SCAN_RATIO, check_claim, check_packed
from medvar_engine.data.read.nifti_extensions import LARGEST_EXTENSIONS, check_extensions, quiet
from medvar_engine.data.read.refusal import MADE_BY_A_MODEL
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted import plain_json

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr")

_HEADER_OF_SIZE = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAGIC = {b"n+1", b"n+2", b"ni1", b"ni2"}
_COMMENT = 6  # code of a header extension in plain text
_LABEL_INTENT = 1002
# Intent codes of files that are not scans (nifti1.h of the NIfTI-1 standard, and the CIFTI-2 specification).
_NO_SCAN = {
    **dict.fromkeys(range(2, 25), "a statistic"),
    1001: "an estimate of a parameter",
    _LABEL_INTENT: "a label map",
    1003: "names of neurones",
    **dict.fromkeys(range(1004, 1012), "matrices, vectors or a surface"),
    **dict.fromkeys((2002, 2003, 2004, 2005), "values of a surface, or colours"),
    **dict.fromkeys(range(3000, 3100), "CIFTI-2, a matrix of values of surfaces and grey matter"),
}
# The descriptions that SPM writes into headers → what the file holds.
_DESCRIBED = (
    (re.compile(r"tissue class|probability map", re.IGNORECASE), "a probability map"),
    (re.compile(r"SPM\{[A-Z]|spm_spm:"), "a statistic"),
)
_GZIP = 16 + zlib.MAX_WBITS
_PACKED_PIECE = 2**16
_LARGEST_OF_METRES = 100.0  # mm; larger voxels mean that the unit in the header is wrong
_SMALLEST_OF_MICROMETRES = 0.01  # mm; smaller voxels are those of a microscope, or given in mm
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}


def data_files(path: Path) -> tuple[Path, ...]:
    """The separate file with the voxels of ``path``: the .img of a .hdr."""
    if path.suffix.lower() != ".hdr":
        return ()
    image = path.with_suffix(".IMG" if path.suffix.isupper() else ".img")
    if image.is_symlink() or not image.is_file():
        raise MedvarError(f"{path}: {image.name} with its voxels is not a file beside it.")
    return (image,)


def check(path: Path, *, synthetic: bool, assumed: Assumed = NOTHING) -> bool:
    """Whether the header marks the image as made by a generative model, which only ``synthetic`` accepts.

    Raises `MedvarError` for other synthetic images, for those with letters in their pixels, and when the header is
    damaged or claims too much data.
    """
    header = _open(path).header
    if not _has_orientation(header) and assumed.orientation is None:
        raise MedvarError(
            f"{path}: its header lacks the orientation in the patient (sform and qform codes are 0; "
            "state it with --assume-orientation LPS)."
        )
    said = [_said(one) for one in header.extensions if one.get_code() == _COMMENT]
    made = [one for one in said if one.get("synthetic") is True or one.get("reconstruction") is True]
    if made and not synthetic:
        raise MedvarError(f"{path}: {MADE_BY_A_MODEL}.")
    if any(isinstance(one.get("pixels"), dict) and one["pixels"].get("burned_in") for one in made):
        raise MedvarError(f"{path}: a model would learn the letters in its pixels. Generate it without --burn-in.")
    return bool(made)


def has_unit(path: Path) -> bool:
    """Whether the header has a unit of lengths; files of scans often have none, and mean mm."""
    return str(_open(path).header.get_xyzt_units()[0]) != "unknown"


def has_orientation(path: Path) -> bool:
    """Whether the header has an orientation."""
    return _has_orientation(_open(path).header)


def _has_orientation(header: Any) -> bool:
    return int(header["sform_code"]) != 0 or int(header["qform_code"]) != 0


def read(
    path: Path, assumed: Assumed = NOTHING, *, labels: bool = False
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Read voxels of 3 or more dimensions, and their affine to RAS mm. ``labels`` accepts label maps."""
    image = _open(path, labels=labels)
    try:
        array = _voxels(path, image)
        if _has_orientation(image.header):
            affine = np.asarray(image.affine, dtype=np.float64)
        else:
            x, y, z = (float(side) for side in (*image.header.get_zooms(), 1.0, 1.0)[:3])
            affine = assumed.affine((x, y, z))
        unit = image.header.get_xyzt_units()[0]
    except Exception as error:  # nibabel raises exceptions of many types for damaged files
        raise MedvarError(f"{path}: cannot be read as NIfTI, it may be truncated ({error}).") from error
    affine[:3] *= _MILLIMETRES.get(unit, 1.0)
    if unit == "micron" and np.linalg.norm(affine[:3, :3], axis=0).max() < _SMALLEST_OF_MICROMETRES:
        raise MedvarError(
            f"{path}: its header says that its voxels are a few micrometres large (xyzt_units); mm are probably meant. "
            "Correct the unit in the header."
        )
    if unit == "meter" and np.linalg.norm(affine[:3, :3], axis=0).max() > _LARGEST_OF_METRES:
        raise MedvarError(
            f"{path}: its header says that its voxels are metres large (xyzt_units); mm are probably meant. "
            "Correct the unit in the header."
        )
    if array.dtype.fields is not None or np.iscomplexobj(array):
        raise MedvarError(f"{path}: colour and complex images are not used (data type {array.dtype}).")
    while array.ndim > 4 and array.shape[-1] == 1:
        array = array[..., 0]
    return array, affine


def _voxels(path: Path, image: Any) -> NDArray[Any]:
    """The voxels of an opened image; a packed file is unpacked into one array, faster than nibabel does it."""
    proxy = image.dataobj
    if not _is_packed(path):
        return np.asanyarray(proxy)
    content = _unpacked(path, proxy.offset + math.prod(proxy.shape) * proxy.dtype.itemsize)
    stored: NDArray[Any] = np.ndarray(proxy.shape, proxy.dtype, content, proxy.offset, order="F")
    return np.asarray(nib.volumeutils.apply_read_scaling(stored, proxy.slope, proxy.inter))


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _unpacked(path: Path, size: int) -> NDArray[np.uint8]:
    """The first ``size`` bytes of a file that gzip packed, in one part or several. Raises `EOFError` when it ends."""
    content, filled = np.empty(size, np.uint8), 0
    inflater = zlib.decompressobj(_GZIP)
    with path.open("rb") as file:
        while filled < size:
            packed = inflater.unused_data or file.read(_PACKED_PIECE)
            if not packed:
                raise EOFError(f"{size} bytes are expected, and {filled} found")
            if inflater.eof:
                inflater = zlib.decompressobj(_GZIP)
            piece = np.frombuffer(inflater.decompress(packed), np.uint8)[: size - filled]
            content[filled : filled + piece.size] = piece
            filled += piece.size
    return content


def _open(path: Path, *, labels: bool = False) -> Any:
    """Open an image and check its header, without reading the voxels."""
    try:
        _check_possible(path, labels=labels)
        with quiet():
            image = nib.load(path)
        if not isinstance(image, nib.Nifti1Pair):  # also true for NIfTI-2, but not for CIFTI-2 and others
            raise MedvarError(f"{path}: it is {type(image).__name__}, not a scan in NIfTI.")
        return image
    except MedvarError:
        raise
    except Exception as error:  # nibabel raises exceptions of many types for damaged files
        raise MedvarError(f"{path}: cannot be read as NIfTI, it may be truncated ({error}).") from error


def _check_possible(path: Path, *, labels: bool) -> None:
    """Check the numbers of the header, because nibabel allocates the memory that they claim."""
    packed = _is_packed(path)
    block = _beginning(path, max(_HEADER_OF_SIZE))
    first = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
    size = next((size for size in _HEADER_OF_SIZE if size in first), None)
    if size is None or len(block) < size:
        raise MedvarError(f"{path}: it is not NIfTI, or truncated: a header of 348 or 540 bytes is expected.")
    header = _HEADER_OF_SIZE[size](block[:size], check=False)
    separate = path.suffix.lower() == ".hdr"
    if bytes(header["magic"])[:3] not in _MAGIC:
        raise MedvarError(f"{path}: it is not NIfTI: its header lacks the word n+1, ni1, n+2 or ni2.")
    intent = int(header["intent_code"])
    if intent in _NO_SCAN and not (labels and intent == _LABEL_INTENT):
        raise MedvarError(f"{path}: its header says that it is {_NO_SCAN[intent]}, not a scan (intent code {intent}).")
    described = bytes(header["descrip"]).split(b"\0")[0].decode("latin-1")
    for pattern, kind in _DESCRIBED:
        if not labels and pattern.search(described):
            raise MedvarError(f"{path}: its header says that it is {kind}, not a scan (description {described!r}).")
    dimensions = [int(side) for side in header["dim"]]
    shape = dimensions[1 : dimensions[0] + 1]
    if not 1 <= dimensions[0] <= 7 or min(shape) < 1:
        raise MedvarError(f"{path}: its header claims the impossible shape {shape or dimensions}.")
    offset = float(header["vox_offset"])
    if not 0 <= offset <= LARGEST_EXTENSIONS:
        raise MedvarError(f"{path}: its header claims that voxels begin at byte {offset:g}.")
    end = path.stat().st_size if separate else int(offset)
    if end > LARGEST_EXTENSIONS:
        raise MedvarError(f"{path}: a header of {end} bytes is not read.")
    content = block if end <= len(block) else _beginning(path, end)
    try:
        check_extensions(content, size, end, little_endian=header.endianness == "<")
    except ValueError as error:
        raise MedvarError(f"{path}: cannot be read as NIfTI, it may be truncated ({error}).") from error
    voxels = math.prod(shape)
    pair = data_files(path)
    stored = (pair[0] if pair else path).stat().st_size
    claimed = voxels * header.get_data_dtype().itemsize
    if packed:
        check_packed(path, voxels, claimed, stored, DEFLATE_RATIO if labels else SCAN_RATIO)
    else:
        check_claim(path, voxels, claimed, stored - int(offset))


def _beginning(path: Path, size: int) -> bytes:
    """The first ``size`` bytes of a file, unpacked."""
    try:
        with gzip.open(path) if _is_packed(path) else path.open("rb") as file:
            return file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise MedvarError(f"{path}: cannot be read as NIfTI, it may be truncated ({error}).") from error


def _said(extension: Any) -> dict[str, Any]:
    """The JSON of a comment by `medvar_engine.write.provenance`; empty for other comments."""
    try:
        said = plain_json.loads(extension.text.rstrip("\0"))
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
