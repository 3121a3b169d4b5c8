"""`ScanOf`: what a layer's metadata record about a scan that the engine's reader opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari.layers import Layer

SCAN = "medvar_scan"


@dataclass(frozen=True, eq=False, slots=True)
class ScanOf:
    """The position of a layer's voxels in the patient, and the unit of their values."""

    to_lps: npt.NDArray[np.float64]  # (4, 4), from the layer's indices to LPS coordinates in mm
    unit: str  # "HU" or "arbitrary"
    frame_of_reference: str | None  # UID

    def to_dict(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Plain values for a layer's metadata; they are valid for data of this ``shape`` only."""
        return {
            "to_lps": self.to_lps.tolist(),
            "unit": self.unit,
            "frame_of_reference": self.frame_of_reference,
            "shape": list(shape),
        }


def scan_of(layer: Layer) -> ScanOf | None:
    """The `ScanOf` of a layer; None for other layers, and for a layer that was cropped from a scan."""
    about = layer.metadata.get(SCAN)
    if about is None or list(layer.data.shape) != about["shape"]:
        return None
    return ScanOf(np.array(about["to_lps"], dtype=np.float64), about["unit"], about["frame_of_reference"])
