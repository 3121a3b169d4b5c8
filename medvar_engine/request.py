"""`Request`: one image to make, and `Sampling`: how its tokens are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError

_SKIPPED = "skip_settled"


MAX_SEED = 2**64 - 1
MOST_SLICES = 1024
"""Slices of a stack."""
_MOST_TOKENS = 2**31  # no vocabulary is larger
PLAUSIBLE = 0.02
"""Least probability of a token that guidance away from a weaker model may favour, relative to the likeliest token."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. The defaults are those of VAR, except ``top_k``, which depends on the vocabulary."""

    guidance: float = 1.5  # strength of guidance at the finest scale
    temperature: float = 1.0  # 0 takes the most likely token
    top_k: int = 0  # keep the k most likely tokens; 0 keeps all
    top_p: float = 0.96  # keep the most likely tokens that together have this probability; 1 keeps all
    even_guidance: bool = False  # the same guidance at every scale; otherwise it rises from 0 as in VAR

    def __post_init__(self) -> None:
        checks = (
            ("guidance", 0 <= self.guidance <= 100, "between 0 and 100"),
            # Below a thousandth, logits divided by it could overflow; 0 has the same effect.
            ("temperature", self.temperature == 0 or 1e-3 <= self.temperature <= 100, "0 or between 0.001 and 100"),
            ("top_k", isinstance(self.top_k, int) and self.top_k >= 0, "a whole number, 0 (all tokens) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("even_guidance", isinstance(self.even_guidance, bool), "true or false"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise MedvarError(f"{name} must be {expected}, but is {getattr(self, name)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `even_guidance` only if true, so that older hashes stay valid."""
        values = asdict(self)
        return values if self.even_guidance else {k: v for k, v in values.items() if k != "even_guidance"}

    def guidance_of(self, k: int, scales: int) -> float:
        """Guidance at scale k of ``scales``."""
        return self.guidance if self.even_guidance else ramp(self.guidance, k, scales)


def check_seed(seed: int) -> int:
    """``seed`` itself. Raises `MedvarError` if it is not in 0…2⁶⁴-1."""
    if not 0 <= seed <= MAX_SEED:
        raise MedvarError(f"A seed must be an integer from 0 to {MAX_SEED}, but is {seed}.")
    return seed


def ramp(guidance: float, k: int, scales: int) -> float:
    """Guidance at scale k: linear from 0 at the coarsest to ``guidance`` at the finest, as in VAR."""
    return guidance * k / max(1, scales - 1)


@dataclass(frozen=True, slots=True)
class StackPlace:
    """Which slice of a stack an image is. Every slice except the first is drawn near the slice before it."""

    slice: int  # from 0 up
    step: float  # distance between neighbouring slices, as a share of the image's side
    before: tuple[int, ...] = ()  # all tokens of the slice before, coarse to fine; empty for the first slice

    def __post_init__(self) -> None:
        if type(self.slice) is not int or not 0 <= self.slice < MOST_SLICES:
            raise MedvarError(f"A stack has slices 0 to {MOST_SLICES - 1}, but got {self.slice!r:.40}.")
        if not 1e-3 <= self.step <= 1:
            raise MedvarError(
                f"Slices of a stack are 0.001 to 1 of the image's side apart, but got {self.step:g}; check the "
                "distance in mm."
            )
        if not all(type(token) is int and 0 <= token < _MOST_TOKENS for token in self.before):
            raise MedvarError("The tokens of the slice before must be whole numbers, 0 or more.")
        if self.before and not self.slice:
            raise MedvarError("The first slice of a stack has no slice before it, but tokens of one are given.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the tokens only if there are any."""
        before = {"before": list(self.before)} if self.before else {}
        return {"slice": self.slice, "step": self.step, **before}

    @classmethod
    def from_dict(cls, values: Any) -> StackPlace:
        """The inverse of `to_dict`. Raises `MedvarError` for anything else."""
        if not isinstance(values, dict) or not {"slice", "step"} <= values.keys():
            raise MedvarError("The place in a stack must be an object with the fields slice and step.")
        step, before = values["step"], values.get("before", [])
        if type(step) not in (int, float) or not isinstance(before, list):
            raise MedvarError("In the place in a stack, step must be a number, and before a list of tokens.")
        return cls(values["slice"], float(step), tuple(before))


@dataclass(frozen=True, slots=True)
class Request:
    """One image to make: condition, seed of the noise, and sampling."""

    condition: Condition = Condition()
    seed: int = 0
    sampling: Sampling = Sampling()
    skipped: float = 0.0  # in images of earlier versions: the share of fine tokens that was skipped
    stack: StackPlace | None = None  # place in a stack; None for a single image

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        skipped = {_SKIPPED: self.skipped} if self.skipped else {}
        return {
            "condition": self.condition.to_dict(),
            "seed": self.seed,
            "sampling": {**self.sampling.to_dict(), **skipped},
            **({"stack": self.stack.to_dict()} if self.stack else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_dict`; other entries are ignored."""
        sampling = dict(values["sampling"])
        skipped = float(sampling.pop(_SKIPPED, 0.0))
        stack = values.get("stack")
        return cls(
            Condition.from_dict(values["condition"]),
            int(values["seed"]),
            Sampling(**sampling),
            skipped,
            None if stack is None else StackPlace.from_dict(stack),
        )
