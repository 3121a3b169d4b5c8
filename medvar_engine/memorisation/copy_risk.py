"""`Nearness`: how near an image is to what the model was trained on, and what is done with one that is too near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Memorised = Literal["withhold", "mark", "allow"]
"""What becomes of images that are too near: not written, written and marked, or nobody asks."""


@dataclass(frozen=True, slots=True)
class Nearness:
    """What the gate of a bundle says of one image."""

    distance: float  # to the nearest training slice, 0…2, in the embedding of the gate
    threshold: float  # nearer than this are few slices of people who were not trained on

    @property
    def flagged(self) -> bool:
        """Whether the image is too near, so perhaps a copy of a training slice."""
        return self.distance < self.threshold

    def __str__(self) -> str:
        """For a message: whose slice it is, is never said."""
        return (
            f"at a distance of {self.distance:.3f} from a training slice, and nearer than {self.threshold:.3f} is "
            "taken for a copy"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"distance": round(self.distance, 4), "threshold": round(self.threshold, 4), "flagged": self.flagged}
