"""The orientation of the slices of each plane in the patient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError

# Directions of the rows and columns of a slice in DICOM's axes: left, posterior, superior.
# Short-axis slices are perpendicular to the long axis of the left ventricle, which has another direction in every
# patient.
# Here the apex points equally to the left, to the front and to the feet: 45° from the sagittal plane and 35° below the
# axial plane. Seen from the apex, the septum is on the left of the image and the inferior wall at the bottom.
_ROWS = {"axial": (0, 1, 0), "coronal": (0, 0, -1), "sagittal": (0, 0, -1), "short-axis": (-1, 1, -2)}
_COLUMNS = {"axial": (1, 0, 0), "coronal": (1, 0, 0), "sagittal": (0, 1, 0), "short-axis": (1, 1, 0)}


def directions(plane: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Unit vectors (LPS) from column to column and from row to row of a slice.

    Raises `MedvarError` for a plane other than axial, coronal, sagittal and short-axis.
    """
    if plane not in _ROWS:
        raise MedvarError(
            f"The plane must be axial, coronal, sagittal or short-axis, but is {plane!r}, so the position is unknown."
        )
    columns, rows = (np.array(along[plane], dtype=np.float64) for along in (_COLUMNS, _ROWS))
    return columns / np.linalg.norm(columns), rows / np.linalg.norm(rows)


def through(plane: str) -> npt.NDArray[np.float64]:
    """The unit vector (LPS) in which positions increase: to the head, to the front, or to the patient's right.

    That of short-axis slices is along the long axis of the heart. Raises `MedvarError` as `directions` does.
    """
    across = np.cross(*directions(plane))
    return -across if plane == "coronal" else across


def corner(plane: str, shape: tuple[int, ...], spacing_mm: float) -> npt.NDArray[np.float64]:
    """The centre of the first pixel of a slice of ``shape`` (H, W) centred on the origin, in LPS mm."""
    columns, rows = directions(plane)
    return -(columns * (shape[1] - 1) + rows * (shape[0] - 1)) / 2 * spacing_mm + 0.0  # -0 becomes 0
