"""`ScanLabels`: the files of the label map of one scan, and the meaning of their values. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LabelFile:
    """One file of labels.

    ``values`` is value in the file → value in the mask, with 0 for structures that are not requested. In a file of a
    ``single`` structure, every value other than 0 is that structure.
    """

    path: Path
    values: Mapping[int, int]
    single: int | None = None


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A DICOM segmentation (SEG). ``values`` is segment number → value in the mask, 0 if not requested."""

    path: Path
    values: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ScanLabels:
    """The label map of one scan: one file of several structures, or one file for each."""

    files: tuple[LabelFile | SegmentFile, ...]
    named_by: str  # the source of the names of values, for messages

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(file.path for file in self.files)
