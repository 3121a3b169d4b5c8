"""Reads DICOM segmentations (SEG, PS3.3 A.51) with highdicom: the series they belong to, and their segments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.tag import Tag

from medvar_engine.data.masks.label_files import SegmentFile
from medvar_engine.data.read.dicom_file import open_dicom, open_header
from medvar_engine.data.read.header_limits import DEFLATE_RATIO, check_claim, check_packed
from medvar_engine.data.read.orientation import lps_to_ras
from medvar_engine.errors import MedvarError

_SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # SEG, and label map SEG
_TAGS = tuple(map(Tag, ("SOPClassUID", "ReferencedSeriesSequence", "SegmentSequence")))
# Decoders of other transfer syntaxes can crash on damaged data.
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99")


def segments_of(path: Path) -> tuple[str, dict[int, str]] | None:
    """The SeriesInstanceUID that a segmentation belongs to, and number → name of its segments; None for other files."""
    try:
        header, _ = open_header(path, _TAGS)
        kind = header.get("SOPClassUID")
    except Exception:  # a file that is not DICOM is not a segmentation
        return None
    if kind not in _SEGMENTATION:
        return None
    try:
        series = str(header.ReferencedSeriesSequence[0].SeriesInstanceUID)
        names = {int(one.SegmentNumber): str(one.SegmentLabel).strip() for one in header.SegmentSequence}
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise MedvarError(f"{path}: this DICOM SEG does not name the series that it belongs to ({error}).") from error
    return series, names


def read_segments(file: SegmentFile) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.float64]]]:
    """For each requested segment its value in the mask, its voxels (X, Y, Z), and their affine to RAS mm."""
    import highdicom

    try:
        dataset = open_dicom(file.path)
        _check(file.path, dataset)
        segmentation: Any = highdicom.seg.Segmentation.from_dataset(dataset)
        for number, value in file.values.items():
            if value == 0:
                continue
            volume = segmentation.get_volume(segment_numbers=[number], allow_missing_positions=True)
            # The axes of highdicom are slice, row, column, segment.
            yield value, np.asarray(volume.array[..., 0] > 0, dtype=np.uint8), lps_to_ras(volume.affine)
    except MedvarError:
        raise
    except Exception as error:  # pydicom and highdicom raise exceptions of many types
        raise MedvarError(f"{file.path}: cannot be read as a DICOM SEG ({error}).") from error


def _check(path: Path, dataset: pydicom.Dataset) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in _PLAIN:
        raise MedvarError(f"{path}: segments are read uncompressed or as RLE, but it is stored as {syntax.name}.")
    voxels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames", 1))
    held, bits = len(dataset.PixelData), int(dataset.BitsAllocated)
    if syntax.is_encapsulated:
        check_packed(path, voxels, voxels * bits // 8, held, DEFLATE_RATIO)
    else:
        check_claim(path, voxels, voxels * bits // 8, held)
