"""`Request`: one image that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvar_engine.conditions import Condition
from medvar_engine.sampling import Sampling, check_seed


@dataclass(frozen=True, slots=True)
class Request:
    """A condition, how tokens are drawn, and the seed of their noise."""

    condition: Condition = Condition()
    seed: int = 0
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"condition": self.condition.to_dict(), "seed": self.seed, "sampling": self.sampling.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_dict`; other entries are ignored."""
        return cls(Condition.from_dict(values["condition"]), int(values["seed"]), Sampling(**values["sampling"]))
