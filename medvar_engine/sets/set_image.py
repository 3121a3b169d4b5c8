"""`SetImage`: one image of a synthetic dataset before it is written."""

from __future__ import annotations

from dataclasses import dataclass

from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray
from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.types import FloatArray


@dataclass(frozen=True, eq=False, slots=True)
class SetImage:
    """Image ``number`` of a dataset."""

    number: int
    image: FloatArray  # (H, W) in [-1, 1]
    trace: Trace
    copy_risk: CopyRisk | None = None  # None without a search for copies
    mask: MaskArray | None = None  # (H, W); None without masks

    @property
    def flagged(self) -> bool:
        """Whether it may be a copy of a training slice."""
        return self.copy_risk is not None and self.copy_risk.flagged
