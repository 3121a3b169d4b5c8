"""`Volume`: one scan, in one orientation and one unit, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvar_engine.types import FloatArray

MINIMUM_SLICES = 3
"""Of a scan, along each axis. A synthetic image may be one slice alone, for it has no neighbours."""


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One scan as an array of values with a place in the patient.

    ``array`` is float32 of shape (X, Y, Z), axes in the closest RAS+ orientation: x to the patient's right, y to the
    front, z to the head. CT is in HU, MR in arbitrary units. ``affine`` maps voxel indices to RAS mm; ``spacing`` is
    the voxel size in mm along x, y, z.

    A multi-frame file without geometry (an old cine loop) has ``oriented`` False: z counts frames, x and y are the
    columns and rows of the frames laid as an axial slice would be, and ``spacing`` is NaN where the file does not say.
    ``remarks`` are for people: what was assumed, or told volumes apart.
    ``modality`` and ``patient`` are None where the file does not say them; ``phase`` names the time point of several.
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
