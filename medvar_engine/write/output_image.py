"""`OutputImage`: one image to write, with the meaning of its pixels and its provenance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray, Structures
from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.types import FloatArray
from medvar_engine.value_range import grey_levels, shares
from medvar_engine.write.marks import UNMARKED, Marks
from medvar_engine.write.place import Place


@dataclass(frozen=True, eq=False, slots=True)
class OutputImage:
    """One slice with its provenance, in radiological orientation.

    Axial rows run from anterior to posterior, coronal and sagittal rows from head to feet. Columns run from the
    patient's right to left, in sagittal slices from anterior to posterior. Short-axis slices are seen from the apex of
    the heart, with the septum on the left and the inferior wall at the bottom.
    """

    pixels: FloatArray  # (H, W) in [-1, 1]
    trace: Trace
    spacing_mm: float | None  # side of a pixel in mm; None if unknown
    low: float  # value of a pixel of -1, in `unit`
    high: float  # value of a pixel of +1, in `unit`
    unit: str  # "HU" or "arbitrary"
    copy_risk: CopyRisk | None = None  # None without a search for copies
    marks: Marks = UNMARKED  # marks in the pixels
    place: Place | None = None  # position in the patient, for a slice that came from a scan; None otherwise
    mask: MaskArray | None = None  # (H, W), the number of the structure at each pixel; None without masks
    structures: Structures = ()  # structures of the mask, in the order of its values from 1 up

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or not self.pixels.size:
            raise MedvarError(f"An image to write must be one grey slice (H, W), but its shape is {self.pixels.shape}.")
        if not np.isfinite(self.pixels).all():
            raise MedvarError("An image to write must be finite, but contains NaN or infinity.")
        if self.mask is not None and (
            self.mask.shape != self.pixels.shape or self.mask.max(initial=0) > len(self.structures)
        ):
            raise MedvarError(
                f"The mask must have the shape {self.pixels.shape} and values of at most {len(self.structures)}."
            )
        if not self.low < self.high:
            raise MedvarError(f"low must be below high, but they are {self.low} and {self.high}.")
        if self.spacing_mm is not None and not 0 < self.spacing_mm < np.inf:
            raise MedvarError(f"The pixel spacing must be above 0 mm, but is {self.spacing_mm}.")

    @classmethod
    def of(cls, bundle: Bundle, trace: Trace, pixels: FloatArray, mask: MaskArray | None = None) -> OutputImage:
        """A finished image ``(H, W)`` and its mask, with pixel spacing and value range from the bundle.

        A condition that does not decide between CT and MR gives no HU.
        """
        display = bundle.display(trace.request.condition)
        values = display.spacing_mm, display.low, display.high, display.unit
        return cls(pixels, trace, *values, mask=mask, structures=() if mask is None else bundle.structures)

    @property
    def reconstruction(self) -> bool:
        """Whether this shows a patient: an encoded real image, or one that is still similar to it after edits."""
        copied = self.copy_risk is not None and self.copy_risk.flagged
        return self.trace.shows_patient(copied=copied)

    @property
    def plane(self) -> str:
        """``axial``, ``coronal``, ``sagittal`` or ``short-axis``; axial if the condition has no plane."""
        return self.trace.request.condition.plane or "axial"

    def values(self) -> FloatArray:
        """Values ``(H, W)`` in `unit`: -1 becomes `low`, +1 `high`; pixels outside are clipped."""
        return np.asarray(self.low + self.share() * (self.high - self.low), dtype=np.float32)

    def share(self) -> npt.NDArray[np.float64]:
        """Fractions ``(H, W)`` of the range, from 0 at `low` to 1 at `high`; pixels outside are clipped."""
        return shares(self.pixels)

    def grey(self) -> npt.NDArray[np.uint8]:
        """8-bit grey levels ``(H, W)``: -1 is black, +1 white."""
        return grey_levels(self.pixels)
