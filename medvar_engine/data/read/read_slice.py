"""Reads a file with one grey slice: PNG, JPEG, TIFF, WebP and NPY of 8 or 16 bits, or DICOM."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from medvar_engine.data.read.code_stream import JPEG_SCAN, MOST_SCANS
from medvar_engine.data.read.dicom_header import read_headers
from medvar_engine.data.read.read_dicom import scan_of
from medvar_engine.data.read.refusal import MADE_BY_A_MODEL
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted import plain_json

GreyArray = NDArray[np.uint8] | NDArray[np.uint16]

LARGEST_PIXELS = 2**26  # pixels of a slice; a large radiograph has 2**24
_RAW_BELOW = 4096  # a 16-bit image with lower values has 12 bits only, and would be nearly black
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_TRACE, _PIXELS = "medvar", "medvar-pixels"  # keywords of the PNG chunks in images of MedVAR
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # TIFF 6.0, section 8


def read_grey(path: Path, *, synthetic: bool = False) -> GreyArray:
    """Read the grey values (H, W) of an image as uint8 or uint16: 0 is black, the largest number is white.

    Raises `MedvarError` for a file that is damaged, in colour, too large, blank, or has several frames; and for an
    image made by a generative model, unless ``synthetic`` accepts these.
    """
    grey = _read_npy(path) if path.suffix.lower() == ".npy" else _read_image_file(path, synthetic)
    if grey.min() == grey.max():
        raise MedvarError("it is blank: all pixels have the same value")
    if grey.dtype == np.uint16 and grey.max() < _RAW_BELOW:
        raise MedvarError(
            f"its largest value is {grey.max()} of 65535, so that it would be nearly black; store it so that white is "
            "65535 (or 255 in 8 bits)"
        )
    return grey


def read_single_dicom(path: Path, modality: str, *, synthetic: bool = False) -> Volume:
    """Read the slice of a DICOM file as a volume that is one voxel thick.

    Raises `MedvarError` when the file cannot be used, holds several frames, or is of another modality.
    """
    headers, left_out = read_headers(path, synthetic=synthetic)
    header = headers[0]
    if header.modality != modality:
        raise MedvarError(f"index.csv says {modality}, but the DICOM header says {header.modality}")
    if header.cine or left_out or len(headers) > 1:
        raise MedvarError("it holds several frames; a file with one slice is expected")
    scan, files = scan_of([[header]])
    (volume,) = scan.load(files, header.series_uid, 1, minimum=1)
    return volume


def _read_npy(path: Path) -> GreyArray:
    try:
        array = np.load(
            path, mmap_mode="r", allow_pickle=False
        )  # as a memory map, which is limited by the size of the file
    except Exception as error:  # parsing the header as a Python literal can raise many exceptions
        raise MedvarError(f"it cannot be read, it may be truncated ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise MedvarError(f"it holds {getattr(array, 'dtype', 'several arrays')}; uint8 or uint16 is expected")
    if array.ndim != 2:
        raise MedvarError(f"its shape is {array.shape}; a grey slice has two axes (rows, columns)")
    _check_size(array.shape[1], array.shape[0])
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def _read_image_file(path: Path, synthetic: bool) -> GreyArray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which are checked here
            with Image.open(path, formats=_FORMATS) as image:
                _check_size(*image.size, LARGEST_PIXELS if image.format != "WEBP" else LARGEST_PIXELS // 4)
                _check_maker(image.info, synthetic)
                _check_frames(image)
                if image.format == "JPEG" and path.read_bytes().count(JPEG_SCAN) > MOST_SCANS:
                    raise MedvarError(f"it holds more than {MOST_SCANS} scans, each of which is decoded in whole")
                return _grey(image)
    except MedvarError:
        raise
    except Exception as error:  # Pillow raises exceptions of many types for damaged files
        raise MedvarError(f"it cannot be read as an image; it may be truncated ({error})") from error


def _grey(image: Image.Image) -> GreyArray:
    turned = ImageOps.exif_transpose(image)
    if turned.mode == "L":
        return np.asarray(turned, dtype=np.uint8)
    if turned.mode.startswith("I;16"):
        values = np.asarray(turned).astype(np.uint16)
        # Pillow inverts white and black for 8 bits only.
        inverted = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # type: ignore[attr-defined]
        return np.invert(values) if inverted else values
    if turned.mode == "RGB":  # WebP stores grey images as RGB
        red, green, blue = (np.asarray(channel, dtype=np.uint8) for channel in turned.split())
        if np.array_equal(red, green) and np.array_equal(red, blue):
            return red
        raise MedvarError("it is in colour; a grey slice is expected")
    raise MedvarError(f"its pixels have the mode {turned.mode}; grey pixels of 8 or 16 bits are expected")


def _check_frames(image: Image.Image) -> None:
    """Raise `MedvarError` for several frames. They are not counted: a TIFF may have millions."""
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
    else:
        raise MedvarError("it holds several frames; a file with one slice is expected")


def _check_size(width: int, height: int, largest: int = LARGEST_PIXELS) -> None:
    """``largest`` is a quarter for WebP, which is unpacked in colour, and twice."""
    if width * height > largest or not width * height:
        raise MedvarError(f"it has {width}×{height} pixels; at least one and at most {largest} are read")


def _check_maker(info: dict[Any, Any], synthetic: bool) -> None:
    if _TRACE not in info:
        return
    if not synthetic:
        raise MedvarError(MADE_BY_A_MODEL)
    try:
        said = plain_json.loads(info.get(_PIXELS) or "{}")
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("burned_in"):
        raise MedvarError("a model would learn the letters in its pixels; generate it without --burn-in")
