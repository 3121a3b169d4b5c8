"""`Assumed`: orientation and voxel size stated by the user, for files without this information."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.check_setting import within
from medvar_engine.errors import MedvarError


@dataclass(frozen=True, slots=True)
class Assumed:
    """Orientation and voxel size to assume for NIfTI, NRRD and MetaImage files without them; None refuses such files.

    ``orientation`` gives the directions of the three voxel axes, e.g. ``LPS`` for left, posterior, superior.
    ``spacing_mm`` is the side of the voxels. Raises `MedvarError` for other letters and for an impossible size.

    >>> Assumed("LPS").affine((2.0, 2.0, 3.0)).diagonal().tolist()
    [-2.0, -2.0, 3.0, 1.0]
    """

    orientation: str | None = None
    spacing_mm: float | None = None

    def __post_init__(self) -> None:
        if self.orientation is not None:
            axes = sorted("".join(pair) for pair in ("LR", "AP", "IS") if any(one in self.orientation for one in pair))
            if len(self.orientation) != 3 or len(axes) != 3:
                raise MedvarError(
                    "An orientation has one letter each of L or R, A or P, I or S, such as LPS, but got "
                    f"{self.orientation!r}."
                )
        if self.spacing_mm is not None:
            within("the assumed spacing, in mm,", self.spacing_mm, 0.001, 1000)

    def remarks(self, *, orientation: bool, spacing: bool) -> tuple[str, ...]:
        """Remarks about a file whose ``orientation`` or ``spacing`` is assumed."""
        found = []
        if orientation:
            found.append(f"its orientation is not stated; {self.orientation} is assumed, as requested")
        if spacing:
            found.append(f"the size of its voxels is not stated; {self.spacing_mm:g} mm is assumed, as requested")
        return tuple(found)

    def affine(self, spacing: tuple[float, float, float]) -> NDArray[np.float64]:
        """The affine (4, 4) to RAS mm for voxels of this size in the assumed orientation, starting at the origin."""
        codes = nib.orientations.axcodes2ornt(tuple(self.orientation or "LPS"))  # type: ignore[no-untyped-call]
        affine = np.zeros((4, 4))
        for axis, (of, sign) in enumerate(codes):
            affine[int(of), axis] = sign * spacing[axis]
        affine[3, 3] = 1.0
        return affine


NOTHING = Assumed()
"""Assumes nothing: files without orientation are refused."""
