"""`ImageSpace`: the unit of an image's pixels and their position in the world."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray, Structures
from medvar_engine.types import FloatArray
from medvar_engine.value_range import Display
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.place import Place
from napari_medvar.session.placement import Placement

_MOST_AXES = 10
_MOST_PIXELS = 2**14  # per side
_UNITS = ("pixel", "meter", "centimeter", "millimeter", "micrometer", "nanometer", "second", "millisecond")


@dataclass(frozen=True, eq=False, slots=True)
class ImageSpace:
    """Everything that a layer needs besides the pixels."""

    display: Display
    placement: Placement
    bundle: str  # folder of the model that made the image; writers read the units from it
    place: Place | None = None  # position in the patient, if the image came from a scan with a known position

    @classmethod
    def of(cls, bundle: Bundle, condition: Condition) -> ImageSpace:
        """The image space of a synthetic image, from the pixel spacing of the training slices."""
        display = bundle.display(condition)
        return cls(display, Placement.flat(bundle.image_size, display.spacing_mm), str(bundle.path))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of all fields except the bundle."""
        display, placement = self.display, self.placement
        known = {} if self.place is None else {"place": self.place.to_dict()}
        return {
            "values": [display.low, display.high],
            "unit": display.unit,
            "spacing_mm": display.spacing_mm,
            "size": placement.size,
            "matrix": placement.matrix.tolist(),
            "units": list(placement.units),
            "axes": list(placement.axes),
            **known,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], bundle: str) -> ImageSpace:
        """The inverse of `to_dict`. Raises `ValueError`, `KeyError` or `TypeError` for invalid values."""
        low, high = map(float, values["values"])
        spacing = None if values["spacing_mm"] is None else float(values["spacing_mm"])
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"pixel values from {low} to {high}")
        if spacing is not None and not 0 < spacing < math.inf:
            raise ValueError(f"a pixel of {spacing} mm")
        display = Display(low, high, "HU" if values["unit"] == "HU" else "arbitrary", spacing)
        place = Place.from_dict(values["place"]) if "place" in values else None
        return cls(display, _placement(values), bundle, place)

    def output_image(
        self, trace: Trace, pixels: FloatArray, mask: MaskArray | None = None, structures: Structures = ()
    ) -> OutputImage:
        """The content of a file for an image ``(H, W)`` in [-1, 1] in this space, and of the file of its mask."""
        values = self.display.spacing_mm, self.display.low, self.display.high, self.display.unit
        named = () if mask is None else structures
        return OutputImage(pixels, trace, *values, place=self.place, mask=mask, structures=named)


def _placement(values: Mapping[str, Any]) -> Placement:
    matrix = np.array(values["matrix"], dtype=np.float64)
    size, (rows, columns), ndim = values["size"], values["axes"], len(matrix) - 1
    if type(size) is not int or not 1 <= size <= _MOST_PIXELS:
        raise ValueError(f"an image of {size!r} pixels per side")
    if not 2 <= ndim <= _MOST_AXES or matrix.shape != (ndim + 1, ndim + 1) or not np.isfinite(matrix).all():
        raise ValueError(f"a place in the world of {matrix.shape} numbers")
    if not np.array_equal(matrix[-1], np.eye(ndim + 1)[-1]) or np.linalg.matrix_rank(matrix) <= ndim:
        raise ValueError("a matrix to the world that cannot be inverted")
    if type(rows) is not int or type(columns) is not int or rows == columns or not {rows, columns} <= set(range(ndim)):
        raise ValueError(f"rows and columns along axes {rows!r} and {columns!r}")
    if len(values["units"]) != ndim:
        raise ValueError(f"{len(values['units'])} units for {ndim} axes")
    # Unknown units, such as those of a microscope's manufacturer, must not make a session unreadable.
    units = tuple(unit if unit in _UNITS else "pixel" for unit in values["units"])
    return Placement(size, matrix, units, (rows, columns))
