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

from medvar_engine.data.codestream import size_of
from medvar_engine.data.dicom_file import modality_of, open_dicom
from medvar_engine.data.limits import check_claim
from medvar_engine.data.volume import FloatArray
from medvar_engine.errors import MedvarError

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


def rescale(path: Path, dataset: Dataset, source: Dataset) -> tuple[float, float]:
    """Slope and intercept in ``source``. A CT without them, or of another unit, is not in HU and is refused."""
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    if modality_of(dataset) == "CT":
        unit = str(source.get("RescaleType") or "HU")
        if slope is None or intercept is None or unit not in ("HU", "US"):
            raise MedvarError(f"{path}: CT values are not in HU (RescaleSlope {slope}, RescaleType {unit}).")
    return float(1 if slope is None else slope), float(0 if intercept is None else intercept)


def measured(pixels: NDArray[np.generic], dataset: Dataset, slope: float, intercept: float) -> FloatArray:
    """Stored pixels → values. HU are HU whatever the display polarity; MR in MONOCHROME1 is turned to bright = high."""
    stored = pixels.astype(np.float64)  # rounded once, at the end
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1" and modality_of(dataset) != "CT":
        signed = int(dataset.get("PixelRepresentation", 0)) == 1
        stored = (-1.0 if signed else 2.0 ** int(dataset.BitsStored) - 1.0) - stored
    with np.errstate(over="ignore", invalid="ignore"):
        stored *= slope
        stored += intercept
        return stored.astype(np.float32)


def _decode(dataset: Dataset, indices: Sequence[int], syntax: UID) -> list[NDArray[np.generic]]:
    plugin = DECODER if syntax.is_encapsulated and syntax != RLELossless else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = list(iter_pixels(dataset, indices=indices, decoding_plugin=plugin))
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
