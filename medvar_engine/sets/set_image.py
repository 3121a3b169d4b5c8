"""`SetImage`: one image of a set, before it is written."""

from __future__ import annotations

from dataclasses import dataclass

from medvar_engine.generate.trace import Trace
from medvar_engine.memorisation.copy_risk import Nearness
from medvar_engine.types import FloatArray


@dataclass(frozen=True, eq=False, slots=True)
class SetImage:
    """Image ``number`` of a set."""

    number: int
    image: FloatArray  # (H, W) in [-1, 1]
    trace: Trace
    nearness: Nearness | None = None  # to the training slices; None when nobody asked

    @property
    def too_near(self) -> bool:
        """Whether it may be a copy of a training slice."""
        return self.nearness is not None and self.nearness.flagged
