"""`StoredPixels`: how the pixels of a DICOM file are stored; `Scale`: the meaning of their values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medvar_engine.data.read.dicom_file import PixelElement, modality_of, value_of
from medvar_engine.data.read.dicom_frame import FrameTags
from medvar_engine.errors import MedvarError

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

TAGS = (
    "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PhotometricInterpretation", "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """The attributes of the header that are needed to read the pixels (PS3.3 C.7.6.3), so that it is read only once.

    ``element`` is the position of PixelData in the file; None if the file is deflated or has no pixels. Missing numbers
    are 0. ``padding`` are Pixel Padding Value and Range Limit as stored. ``tiles`` is the number of tiles per side of a
    mosaic, otherwise 1.
    """

    syntax: str
    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    inverted: bool
    padding: tuple[int, int] | None
    element: PixelElement | None
    tiles: int = 1

    @property
    def voxels(self) -> int:
        """The number of pixels of all frames."""
        return self.rows * self.columns * self.frames

    @property
    def unpacked_bytes(self) -> int:
        """The size of the pixels of all frames without compression."""
        return self.voxels * self.bits_allocated // 8

    @property
    def compressed(self) -> bool:
        """Whether the pixels are encapsulated, as compressed frames."""
        return self.syntax not in _NATIVE


@dataclass(frozen=True, slots=True)
class Scale:
    """The slope, intercept and unit of a frame's values; None if unknown.

    ``fault`` is an error in them. It is stored and not raised, so that the whole series is refused for it.
    """

    slope: float | None = None
    intercept: float | None = None
    unit: str | None = None
    fault: str | None = None

    def line(self, path: Path, modality: str) -> tuple[float, float]:
        """Slope and intercept. Raises `MedvarError` for CT without them, or with another unit than HU."""
        if self.fault is not None:
            raise MedvarError(f"{path}: a value in its header is missing or malformed ({self.fault}).")
        unit = self.unit or "HU"
        if modality == "CT" and (self.slope is None or self.intercept is None or unit not in ("HU", "US")):
            found = f"RescaleSlope {self.slope}, RescaleIntercept {self.intercept}, RescaleType {unit}"
            raise MedvarError(f"{path}: CT values are not in HU ({found}).")
        return 1.0 if self.slope is None else self.slope, 0.0 if self.intercept is None else self.intercept


def stored_of(dataset: Dataset, element: PixelElement | None) -> StoredPixels:
    """The `StoredPixels` of a file with its pixels at ``element``."""

    def number(keyword: str, otherwise: int = 0) -> int:
        value = value_of(dataset, keyword)
        return otherwise if value is None or value == "" else int(value)

    first, last = value_of(dataset, "PixelPaddingValue"), value_of(dataset, "PixelPaddingRangeLimit")
    bits_stored = number("BitsStored")
    inverted = str(value_of(dataset, "PhotometricInterpretation")) == "MONOCHROME1" and modality_of(dataset) != "CT"
    return StoredPixels(
        _syntax(dataset),
        number("Rows"),
        number("Columns"),
        number("NumberOfFrames") or 1,
        number("BitsAllocated"),
        bits_stored,
        number("HighBit", bits_stored - 1),
        number("PixelRepresentation") == 1,
        inverted,
        None if first is None else (int(first), int(first if last is None else last)),
        element,
    )


def scale_of(tags: FrameTags) -> Scale:
    """The `Scale` of a frame."""
    try:
        unit, slope = tags.get("RescaleType"), tags.number("RescaleSlope")
        if slope == 0:
            return Scale(fault="RescaleSlope is 0")
        return Scale(slope, tags.number("RescaleIntercept"), str(unit) if unit else None)
    except Exception as error:  # values are converted on access, which can raise many exceptions
        return Scale(fault=repr(error))


def _syntax(dataset: Dataset) -> str:
    """The transfer syntax; if the file has none, the encoding of its header."""
    said = str(value_of(dataset.file_meta, "TransferSyntaxUID") or "") if hasattr(dataset, "file_meta") else ""
    if said:
        return said
    implicit, little = dataset.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)
