"""The pixels of DICOM frames: decoded, and as the values that they stand for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, RLELossless

from medvar_engine.data.read.dicom_file import modality_of, open_dicom
from medvar_engine.data.read.dicom_frame import FrameTags
from medvar_engine.data.read.header_limits import check_claim
from medvar_engine.data.read.jpeg_size import precision_of, size_of
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

# The one decoder of all JPEG syntaxes. Of the others GDCM ends the process on damaged files, CharLS (pyjpegls) runs on
# for ever, and Pillow knows few of them. RLE is pydicom's own.
DECODER = "pylibjpeg"


def open_image(path: Path) -> Dataset:
    """The data set of a file that holds pixels."""
    dataset = open_dicom(path)
    if "PixelData" not in dataset:
        raise MedvarError(f"{path}: it has no PixelData; the file may be truncated.")
    return dataset


def stored_pixels(path: Path, dataset: Dataset, indices: Sequence[int]) -> list[NDArray[np.generic]]:
    """Stored values (rows, columns) of the frames ``indices``. Raises `MedvarError` when they cannot be decoded."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    voxels = int(dataset.Rows) * int(dataset.Columns) * frames
    syntax = UID(dataset.file_meta.get("TransferSyntaxUID", ""))
    packed = syntax.is_encapsulated
    stored = len(dataset.PixelData or b"")
    # A frame that is packed still needs a byte.
    check_claim(path, voxels, frames if packed else voxels * int(dataset.BitsAllocated) // 8, stored)
    try:
        if packed:
            for index in indices:
                _check_frame(dataset, get_frame(dataset.PixelData, index, number_of_frames=frames))
        return _decode(dataset, indices, syntax)
    except Exception as error:  # decoders raise what they like
        raise MedvarError(f"{path}: the pixels cannot be decoded, the file may be truncated ({error}).") from error


def rescale(path: Path, dataset: Dataset, frame: FrameTags) -> tuple[float, float]:
    """Slope and intercept of a frame. A CT without them, or of another unit, is not in HU and is refused."""
    slope, intercept = frame.number("RescaleSlope"), frame.number("RescaleIntercept")
    if modality_of(dataset) == "CT":
        unit = str(frame.get("RescaleType") or "HU")
        if slope is None or intercept is None or unit not in ("HU", "US"):
            raise MedvarError(f"{path}: CT values are not in HU (RescaleSlope {slope}, RescaleType {unit}).")
    return float(1 if slope is None else slope), float(0 if intercept is None else intercept)


def measured(pixels: NDArray[np.generic], dataset: Dataset, slope: float, intercept: float) -> FloatArray:
    """Stored pixels → values; padding is NaN.

    HU are HU whatever the display polarity; MR in MONOCHROME1 is turned to bright = high.
    """
    stored = pixels.astype(np.float64)  # rounded once, at the end
    empty = padding(dataset, pixels)
    if empty is not None:
        stored[empty] = np.nan  # no image data: the scale does not hold for it
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1" and modality_of(dataset) != "CT":
        signed = int(dataset.get("PixelRepresentation", 0)) == 1
        stored = (-1.0 if signed else 2.0 ** int(dataset.BitsStored) - 1.0) - stored
    with np.errstate(over="ignore", invalid="ignore"):
        stored *= slope
        stored += intercept
        return stored.astype(np.float32)


def padding(dataset: Dataset, pixels: NDArray[np.generic]) -> NDArray[np.bool_] | None:
    """Where stored pixels are no image data: Pixel Padding Value and its Range Limit (PS3.3 C.7.5.1.1.2), or None.

    They are compared as words, since many files say a signed value with the tag's unsigned representation.
    """
    first = dataset.get("PixelPaddingValue")
    if first is None or not np.issubdtype(pixels.dtype, np.integer):
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    bits = int(dataset.BitsAllocated)
    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    ends = sorted(_as_stored(int(value), bits, signed) for value in (first, first if last is None else last))
    values = pixels.astype(np.int64)
    return np.asarray((values >= ends[0]) & (values <= ends[1]))


def without_padding(path: Path, frames: Sequence[FloatArray]) -> FloatArray:
    """Frames (N, rows, columns) with the lowest value of them all in place of padding, which is background then."""
    stacked = np.stack(frames)
    empty = np.isnan(stacked)
    if empty.all():
        raise MedvarError(f"{path}: all pixels have the PixelPaddingValue: there is no image.")
    if empty.any():
        stacked[empty] = np.nanmin(stacked)
    return stacked


def _as_stored(value: int, bits: int, signed: bool) -> int:
    word = value % 2**bits
    return word - 2**bits if signed and word >= 2 ** (bits - 1) else word


def _only_stored_bits(frame: NDArray[np.generic], dataset: Dataset, left_aligned: bool) -> NDArray[np.generic]:
    """The frame without what lies outside of BitsStored: overlays, or anything (PS3.5 8.1.1)."""
    frame = frame.astype(frame.dtype.newbyteorder("="), copy=False)
    stored, width = int(dataset.BitsStored), frame.dtype.itemsize * 8
    words = frame.view(f"u{frame.dtype.itemsize}") if frame.dtype.kind in "iu" else None
    if words is None or not 0 < stored <= width or (stored == width and not left_aligned):
        return frame
    if left_aligned:
        words = words >> np.asarray(int(dataset.get("HighBit", stored - 1)) + 1 - stored, words.dtype)
    up = np.asarray(width - stored, words.dtype)
    raised = words << up
    return np.asarray(raised.view(frame.dtype) >> up.astype(frame.dtype))


def _decode(dataset: Dataset, indices: Sequence[int], syntax: UID) -> list[NDArray[np.generic]]:
    jpeg = syntax.is_encapsulated and syntax != RLELossless
    stored = int(dataset.BitsStored)
    left_aligned = int(dataset.get("HighBit", stored - 1)) + 1 > stored
    if jpeg and left_aligned:  # the code stream has the words as they were, or BitsStored of them alone
        frame = get_frame(dataset.PixelData, indices[0], number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        left_aligned = (precision_of(frame) or 0) > stored
    try:
        if left_aligned and not jpeg:
            dataset.BitsStored = dataset.BitsAllocated  # or else pydicom would keep the low bits, and not the high
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = list(iter_pixels(dataset, indices=indices, decoding_plugin=DECODER if jpeg else ""))
    finally:
        dataset.BitsStored = stored
    frames = [_only_stored_bits(frame, dataset, left_aligned) for frame in frames]
    if any(frame.shape != (dataset.Rows, dataset.Columns) for frame in frames):
        raise ValueError(f"{dataset.Rows} × {dataset.Columns} pixels are expected")
    return frames


def _check_frame(dataset: Dataset, frame: bytes) -> None:
    """Refuse a frame whose code stream is of another size than the header says, before memory is taken for it."""
    size = size_of(frame)
    if size is not None and size != (dataset.Rows, dataset.Columns):
        raise ValueError(
            f"a frame has {size[0]} × {size[1]} pixels, its header says {dataset.Rows} × {dataset.Columns}"
        )
