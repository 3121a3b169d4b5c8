"""`Turn`: how a frame is turned in its plane, so that its rows and columns run like those of the other slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.read.dicom_geometry import FrameGeometry

_SAME_DIRECTION = 1e-3  # of the components of unit vectors
_SAME_SIZE = 1e-3  # mm

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Turn:
    """Pixels (rows, columns) are transposed first, then their rows or columns are reversed."""

    transposed: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False

    def pixels(self, frame: NDArray[Number]) -> NDArray[Number]:
        """The turned frame, without a copy."""
        turned = frame.T if self.transposed else frame
        return turned[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


UNTURNED = Turn()


def turned_to(
    frame: FrameGeometry, matrix: tuple[int, int], orientation: Sequence[float]
) -> tuple[Turn, FrameGeometry] | None:
    """The turn after which a frame of ``matrix`` (rows, columns) has this ``orientation``, and its geometry then.

    None if no turn by right angles and no reversal gives the orientation, or if the matrix or the pixels of a
    transposed frame are not square.
    """
    along_row, along_column = np.reshape(frame.orientation, (2, 3))
    wanted_row, wanted_column = np.reshape(orientation, (2, 3))
    transposed = abs(float(along_row @ wanted_row)) < abs(float(along_row @ wanted_column))
    if transposed:
        if matrix[0] != matrix[1] or abs(frame.spacing[0] - frame.spacing[1]) > _SAME_SIZE:
            return None
        along_row, along_column = along_column, along_row
    position = np.asarray(frame.position)
    backwards = []
    # The step along a column leads to the next row: PixelSpacing[0], and the number of rows.
    for along, wanted, step, count in (
        (along_column, wanted_column, frame.spacing[0], matrix[0]),
        (along_row, wanted_row, frame.spacing[1], matrix[1]),
    ):
        is_backwards = float(along @ wanted) < 0
        if np.abs(along * (-1 if is_backwards else 1) - wanted).max() > _SAME_DIRECTION:
            return None
        if is_backwards:
            position = position + along * step * (count - 1)
        backwards.append(is_backwards)
    geometry = FrameGeometry(tuple(float(one) for one in position), tuple(orientation), frame.spacing)
    return Turn(transposed, *backwards), geometry
