"""`Place`: the position in the patient of a slice that came from a scan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError

_UID = re.compile(r"[0-9][0-9.]{0,63}")
_SQUARE = 1e-3  # largest cosine of the angle between rows and columns that DICOM allows


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """A slice in the coordinates of its scan.

    ``matrix`` (4, 4) maps ``(column, row, slice)`` of a pixel's centre to LPS mm (left, posterior, superior), as in
    DICOM. Its third column is the step to the next slice of the scan. ``frame_of_reference`` is the scan's
    FrameOfReferenceUID (DICOM PS3.3 C.7.4.1), so that viewers can overlay both; None if unknown.
    """

    matrix: npt.NDArray[np.float64]
    frame_of_reference: str | None = None

    def __post_init__(self) -> None:
        matrix = self.matrix
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix[:3, :3]) < 3:
            raise MedvarError(f"The matrix of a place must be 4×4 and invertible, but is {matrix.tolist()}.")
        if self.frame_of_reference is not None and not _UID.fullmatch(self.frame_of_reference):
            raise MedvarError(f"{self.frame_of_reference!r} is not a UID of a frame of reference.")

    @property
    def sides(self) -> tuple[float, float, float]:
        """Distances in mm from column to column, from row to row, and from slice to slice."""
        along_columns, along_rows, through = (float(np.linalg.norm(self.matrix[:3, axis])) for axis in range(3))
        return along_columns, along_rows, through

    @property
    def directions(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Unit vectors (LPS) from column to column and from row to row, as DICOM requires them.

        Raises `MedvarError` for a sheared slice, with rows that are not perpendicular to columns.
        """
        columns, rows = (self.matrix[:3, axis] / self.sides[axis] for axis in range(2))
        if abs(float(columns @ rows)) > _SQUARE:
            raise MedvarError(
                "The scan that this slice came from is sheared, which DICOM cannot represent. Write NIfTI instead."
            )
        return columns, rows

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"matrix": self.matrix.tolist(), "frame_of_reference": self.frame_of_reference}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Place:
        """The inverse of `to_dict`.

        Raises `MedvarError`, `ValueError`, `KeyError` or `TypeError` for invalid values.
        """
        uid = values["frame_of_reference"]
        return cls(np.array(values["matrix"], dtype=np.float64), None if uid is None else str(uid))
