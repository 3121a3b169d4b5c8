"""Siemens mosaics: the slices of a volume as tiles of one image, and the position of each slice.

The tiles form a square, in rows from the upper left, and the last ones may be empty. ImagePositionPatient is that of a
first slice that is as large as the whole mosaic, with the same centre. The direction from slice to slice is given only
by SliceNormalVector in the CSA header; it may be opposite to the normal of rows and columns.

Source: nibabel's documentation, "Siemens mosaic format"; dcm2niix does the same.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from medvar_engine.data.read.dicom_file import floats_of, value_of
from medvar_engine.errors import MedvarError

CSA_CREATOR, CSA_HEADER = 0x00290010, 0x00291010
TAGS = (CSA_CREATOR, CSA_HEADER)

_MOST_SLICES = 1024
_ALONG = 0.99  # least cosine between the slice normal and the normal of rows and columns


@dataclass(frozen=True, slots=True)
class Mosaic:
    """``count`` slices in a square of ``side`` × ``side`` tiles; the unit vector (3), LPS, from slice to slice."""

    count: int
    side: int
    normal: tuple[float, ...]

    def position(self, tile: int, dataset: Dataset) -> tuple[float, ...]:
        """The ImagePositionPatient of one slice. Raises `MedvarError` if the header lacks the positions of slices."""
        place, orientation, spacing = (
            floats_of(value_of(dataset, name))
            for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        )
        step = floats_of(value_of(dataset, "SpacingBetweenSlices")) or floats_of(value_of(dataset, "SliceThickness"))
        if place is None or orientation is None or spacing is None or step is None or len(orientation) != 6:
            raise MedvarError("the header of this mosaic lacks the positions or the distance of its slices")
        rows, columns = np.asarray(orientation[:3]), np.asarray(orientation[3:])
        if abs(float(np.dot(np.cross(rows, columns), self.normal))) < _ALONG:
            raise MedvarError("the slices of this mosaic are not stacked along the normal of their rows and columns")
        left_out = [int(dataset.get(name)) * (1 - 1 / self.side) / 2 for name in ("Columns", "Rows")]
        corner = np.asarray(place) + rows * spacing[1] * left_out[0] + columns * spacing[0] * left_out[1]
        return tuple(float(one) for one in corner + np.asarray(self.normal) * step[0] * tile)


def mosaic_of(dataset: Dataset) -> Mosaic:
    """The arrangement of the slices of a mosaic, from its CSA header. Raises `MedvarError` if it is missing there."""
    if CSA_HEADER not in dataset or "CSA" not in str(dataset[CSA_CREATOR].value if CSA_CREATOR in dataset else ""):
        raise MedvarError(
            "this mosaic lacks the CSA header with the number and the order of its slices; convert the scan before "
            "de-identifying it"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel warns that its DICOM readers are experimental
        from nibabel.nicom import csareader
    try:
        header = csareader.read(dataset[CSA_HEADER].value)  # type: ignore[no-untyped-call]
        count = int(csareader.get_n_mosaic(header) or 0)  # type: ignore[no-untyped-call]
        vector = csareader.get_slice_normal(header)  # type: ignore[no-untyped-call]
        normal = tuple(float(one) for one in (() if vector is None else vector))
    except Exception as error:  # a damaged header can raise many exceptions
        raise MedvarError(f"the CSA header of this mosaic is damaged ({error!r})") from error
    length = math.hypot(*normal)
    if not 1 < count <= _MOST_SLICES or len(normal) != 3 or not 0.99 < length < 1.01:
        raise MedvarError(f"the CSA header of this mosaic has impossible values: {count} slices along {normal}")
    side = math.ceil(math.sqrt(count))
    if any(int(dataset.get(name) or 0) % side for name in ("Rows", "Columns")):
        raise MedvarError(f"the sides of this mosaic of {count} slices are not multiples of {side}")
    return Mosaic(count, side, tuple(one / length for one in normal))
