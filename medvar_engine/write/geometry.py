"""How the slices of each plane lie in the patient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError

# Where rows and columns of a slice run, in DICOM's axes: left, posterior, superior.
# Short-axis slices are at right angles to the long axis of the left ventricle. Where that runs differs from heart to
# heart; here its apex points to the left, to the front and to the feet alike: 45° from the sagittal plane and 35° below
# the axial one. The septum is on the left of the image, the inferior wall at its bottom, seen from the apex.
_ROWS = {"axial": (0, 1, 0), "coronal": (0, 0, -1), "sagittal": (0, 0, -1), "short-axis": (-1, 1, -2)}
_COLUMNS = {"axial": (1, 0, 0), "coronal": (1, 0, 0), "sagittal": (0, 1, 0), "short-axis": (1, 1, 0)}


def directions(plane: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Unit vectors (LPS) along which the columns of a slice, and its rows, follow each other.

    Raises `MedvarError` for a plane that is none of axial, coronal, sagittal and short-axis.
    """
    if plane not in _ROWS:
        raise MedvarError(
            f"A slice is axial, coronal, sagittal or short-axis, but this one is {plane!r}: its place is not known."
        )
    columns, rows = (np.array(along[plane], dtype=np.float64) for along in (_COLUMNS, _ROWS))
    return columns / np.linalg.norm(columns), rows / np.linalg.norm(rows)


def through(plane: str) -> npt.NDArray[np.float64]:
    """The unit vector (LPS) along which positions rise: to the head, to the front, or to the patient's right.

    Raises `MedvarError` as `directions` does.
    """
    directions(plane)
    return np.array({"axial": (0, 0, 1), "coronal": (0, -1, 0), "sagittal": (-1, 0, 0)}[plane], dtype=np.float64)


def corner(plane: str, shape: tuple[int, ...], spacing_mm: float) -> npt.NDArray[np.float64]:
    """Where the centre of the first pixel of a slice of ``shape`` (H, W) lies, in LPS mm, its middle at the origin."""
    columns, rows = directions(plane)
    return -(columns * (shape[1] - 1) + rows * (shape[0] - 1)) / 2 * spacing_mm + 0.0  # -0 becomes 0
