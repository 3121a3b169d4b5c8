"""`Volume`: one scan in a standard orientation and unit, independent of the file format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvar_engine.types import FloatArray

MINIMUM_SLICES = 3
"""Least number of slices of a scan along each axis. A synthetic image may be a single slice."""


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One scan as an array of values with a place in the patient.

    ``array`` is float32 of shape (X, Y, Z), axes in the closest RAS+ orientation: x to the patient's right, y to the
    front, z to the head. CT is in HU, MR in arbitrary units. ``affine`` maps voxel indices to RAS mm; ``spacing`` is
    the voxel size in mm along x, y, z.

    A multi-frame file without geometry (an old cine loop) has ``oriented`` False: z counts frames, x and y are columns
    and rows of the frames like those of an axial slice, and ``spacing`` is NaN if unknown. ``remarks`` are for users:
    what was assumed, or how volumes were distinguished. ``modality`` and ``patient`` are None if unknown; ``phase``
    names the time point of several.
    """

    array: FloatArray
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    modality: str | None
    patient: str | None
    series: str
    source: Path
    phase: str | None = None
    oriented: bool = True
    remarks: tuple[str, ...] = ()
