"""`Place`: where in a patient a slice lies that was made from a slice of a scan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError

_UID = re.compile(r"[0-9][0-9.]{0,63}")
_SQUARE = 1e-3  # cosine of the angle between rows and columns of a slice that DICOM can hold


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """A slice in the coordinates of its scan.

    ``matrix`` (4, 4) maps ``(column, row, slice)`` of a pixel's centre to mm in LPS: left, posterior, superior, as
    DICOM has it. Its third column is the step to the scan's next slice. ``frame_of_reference`` is the scan's
    FrameOfReferenceUID (DICOM PS3.3 C.7.4.1), so that viewers lay both over each other; None where it is not known.
    """

    matrix: npt.NDArray[np.float64]
    frame_of_reference: str | None = None

    def __post_init__(self) -> None:
        matrix = self.matrix
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix[:3, :3]) < 3:
            raise MedvarError(
                f"A place in a patient is an invertible matrix of 4×4 numbers, but got {matrix.tolist()}."
            )
        if self.frame_of_reference is not None and not _UID.fullmatch(self.frame_of_reference):
            raise MedvarError(f"{self.frame_of_reference!r} is no UID of a frame of reference.")

    @property
    def sides(self) -> tuple[float, float, float]:
        """Lengths in mm: from column to column, from row to row, from slice to slice."""
        along_columns, along_rows, through = (float(np.linalg.norm(self.matrix[:3, axis])) for axis in range(3))
        return along_columns, along_rows, through

    @property
    def directions(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Unit vectors (LPS) along which the columns, and the rows, follow each other, as DICOM wants them.

        Raises `MedvarError` for a sheared slice, whose rows are not at right angles to its columns.
        """
        columns, rows = (self.matrix[:3, axis] / self.sides[axis] for axis in range(2))
        if abs(float(columns @ rows)) > _SQUARE:
            raise MedvarError(
                "The scan that this slice comes from is sheared, which DICOM cannot say: write NIfTI instead."
            )
        return columns, rows

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"matrix": self.matrix.tolist(), "frame_of_reference": self.frame_of_reference}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Place:
        """The inverse of `to_dict`. Raises `MedvarError`, `ValueError`, `KeyError` or `TypeError` for what is none."""
        uid = values["frame_of_reference"]
        return cls(np.array(values["matrix"], dtype=np.float64), None if uid is None else str(uid))
