"""`CopyRisk`: the distance of an image from training slices; `CopyPolicy`: what to do with possible copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

CopyPolicy = Literal["withhold", "flag", "off"]
"""What to do with possible copies of training slices: withhold them, flag them, or do not check (off)."""


@dataclass(frozen=True, slots=True)
class CopyRisk:
    """The result of the gate of a bundle for one image."""

    distance: float  # distance to the nearest training slice, 0…2, in the gate's measure
    threshold: float  # few slices of held-out patients are closer than this

    @property
    def flagged(self) -> bool:
        """Whether the image is so close that it may be a copy of a training slice."""
        return self.distance < self.threshold

    def __str__(self) -> str:
        """The result for a message, without the patient's name."""
        return (
            f"at a distance of {self.distance:.3f} from a training slice, and below {self.threshold:.3f} it counts as "
            "a possible copy"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"distance": round(self.distance, 4), "threshold": round(self.threshold, 4), "flagged": self.flagged}
