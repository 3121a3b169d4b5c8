"""`ScanLabels`: the files that hold the label map of one scan, and what their values stand for. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LabelFile:
    """One file of labels.

    ``values`` is value in the file → value in the mask, 0 for what is known and not taken. A file of a single
    structure (``single``) has that wherever it is not 0, whatever its ``values``.
    """

    path: Path
    values: Mapping[int, int]
    single: int | None = None


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A DICOM segmentation (SEG). ``values`` is number of a segment → value in the mask, 0 for what is not taken."""

    path: Path
    values: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ScanLabels:
    """The label map of one scan: one file of several structures, or one file for each."""

    files: tuple[LabelFile | SegmentFile, ...]
    named_by: str  # what says which values there are, for people

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(file.path for file in self.files)
