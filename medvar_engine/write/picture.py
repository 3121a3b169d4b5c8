"""`Picture`: one image as it is written out, with what its pixels stand for."""

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
class Picture:
    """One slice and where it comes from. Rows and columns run as on a radiologist's screen.

    Axial rows run from anterior to posterior, coronal and sagittal ones from head to feet; columns run from the
    patient's right to left, in sagittal slices from anterior to posterior. Short-axis slices are seen from the apex of
    the heart, the septum on the left and the inferior wall at the bottom.
    """

    pixels: FloatArray  # (H, W) in [-1, 1]
    trace: Trace
    spacing_mm: float | None  # side of a pixel; None when not known
    low: float  # value of a pixel of -1
    high: float  # value of a pixel of +1
    unit: str  # "HU" or "arbitrary"
    copy_risk: CopyRisk | None = None  # None when copies were not looked for
    marks: Marks = UNMARKED  # what was written into the pixels
    place: Place | None = None  # in the patient, of a slice that came from a scan; None is nowhere in particular
    mask: MaskArray | None = None  # (H, W), the number of the structure of each pixel; None of a model without masks
    structures: Structures = ()  # that values of the mask stand for, from 1 up

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or not self.pixels.size:
            raise MedvarError(f"An image to write must be one grey slice (H, W), but its shape is {self.pixels.shape}.")
        if not np.isfinite(self.pixels).all():
            raise MedvarError("A picture to write must be finite, but holds NaN or infinity.")
        if self.mask is not None and (
            self.mask.shape != self.pixels.shape or self.mask.max(initial=0) > len(self.structures)
        ):
            raise MedvarError(f"A mask of {self.pixels.shape} is expected, its values at most {len(self.structures)}.")
        if not self.low < self.high:
            raise MedvarError(f"The values of a picture rise from low to high, but got {self.low} and {self.high}.")
        if self.spacing_mm is not None and not 0 < self.spacing_mm < np.inf:
            raise MedvarError(f"The spacing of a picture is a length above 0 mm, but is {self.spacing_mm}.")

    @classmethod
    def of(cls, bundle: Bundle, trace: Trace, pixels: FloatArray, mask: MaskArray | None = None) -> Picture:
        """A finished image ``(H, W)`` and its mask, with the size and the values of pixels as the bundle knows them.

        A condition that leaves it open whether the image is CT or MR gives no HU.
        """
        display = bundle.display(trace.request.condition)
        values = display.spacing_mm, display.low, display.high, display.unit
        return cls(pixels, trace, *values, mask=mask, structures=() if mask is None else bundle.structures)

    @property
    def reconstruction(self) -> bool:
        """Whether this shows a patient: an encoded real image, or one that is still like a real one after edits."""
        copied = self.copy_risk is not None and self.copy_risk.flagged
        return self.trace.encoded or (copied and self.trace.of_real_image)

    @property
    def plane(self) -> str:
        """``axial``, ``coronal``, ``sagittal`` or ``short-axis``; axial when the condition leaves it open."""
        return self.trace.request.condition.plane or "axial"

    def values(self) -> FloatArray:
        """``(H, W)`` in `unit`: -1 is `low`, +1 is `high`; what lies outside is clipped."""
        return np.asarray(self.low + self.share() * (self.high - self.low), dtype=np.float32)

    def share(self) -> npt.NDArray[np.float64]:
        """``(H, W)`` from 0 at `low` to 1 at `high`; what lies outside is clipped."""
        return shares(self.pixels)

    def grey(self) -> npt.NDArray[np.uint8]:
        """``(H, W)`` in 8 bits: -1 is black, +1 white."""
        return grey_levels(self.pixels)
