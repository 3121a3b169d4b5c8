"""`Request`: one image that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvar_engine.conditions import Condition
from medvar_engine.sampling import Sampling, check_seed

_SKIPPED = "skip_settled"


@dataclass(frozen=True, slots=True)
class Request:
    """A condition, how tokens are drawn, and the seed of their noise."""

    condition: Condition = Condition()
    seed: int = 0
    sampling: Sampling = Sampling()
    skipped: float = 0.0  # of images of earlier versions: the share of fine tokens that was left out

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        skipped = {_SKIPPED: self.skipped} if self.skipped else {}
        return {
            "condition": self.condition.to_dict(),
            "seed": self.seed,
            "sampling": {**self.sampling.to_dict(), **skipped},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_dict`; other entries are ignored."""
        sampling = dict(values["sampling"])
        skipped = float(sampling.pop(_SKIPPED, 0.0))
        return cls(Condition.from_dict(values["condition"]), int(values["seed"]), Sampling(**sampling), skipped)
