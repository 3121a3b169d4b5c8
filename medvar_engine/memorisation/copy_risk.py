"""`CopyRisk`: how near an image is to what the model was trained on; `CopyPolicy`: what is done with copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

CopyPolicy = Literal["withhold", "flag", "off"]
"""What is done with images that may be copies of training slices: not written, written and flagged, not looked for."""


@dataclass(frozen=True, slots=True)
class CopyRisk:
    """What the gate of a bundle says of one image."""

    distance: float  # to the nearest training slice, 0…2, in the embedding of the gate
    threshold: float  # few slices of held-out patients are nearer than this

    @property
    def flagged(self) -> bool:
        """Whether the image is so near that it may be a copy of a training slice."""
        return self.distance < self.threshold

    def __str__(self) -> str:
        """For a message. It never names the patient."""
        return (
            f"at a distance of {self.distance:.3f} from a training slice, and nearer than {self.threshold:.3f} is "
            "taken for a copy"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"distance": round(self.distance, 4), "threshold": round(self.threshold, 4), "flagged": self.flagged}
