"""`Request`: one image to make, and `Sampling`: how its tokens are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError

_SKIPPED = "skip_settled"
_EVEN = "even_guidance"  # how files say coarse_guidance: true is a share of 1, false or nothing of 0


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
    coarse_guidance: float = 0.0  # guidance at the coarsest scale, as a share of ``guidance``; 0 as in VAR
    coarse_top_p: float = 1.0  # top-p at the coarsest scale, as a share of ``top_p``

    def __post_init__(self) -> None:
        checks = (
            ("guidance", 0 <= self.guidance <= 100, "between 0 and 100"),
            # Below a thousandth, logits divided by it could overflow; 0 has the same effect.
            ("temperature", self.temperature == 0 or 1e-3 <= self.temperature <= 100, "0 or between 0.001 and 100"),
            ("top_k", isinstance(self.top_k, int) and self.top_k >= 0, "a whole number, 0 (all tokens) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("coarse_guidance", 0 <= self.coarse_guidance <= 1, "between 0 and 1, a share of guidance"),
            ("coarse_top_p", 0 < self.coarse_top_p <= 1, "above 0 and at most 1, a share of top_p"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise MedvarError(f"{name} must be {expected}, but is {getattr(self, name)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON. What earlier versions knew is written as in these, so that hashes stay valid."""
        values = asdict(self)
        if self.coarse_top_p == 1:
            del values["coarse_top_p"]
        share = values.pop("coarse_guidance")
        return values | ({_EVEN: True} if share == 1 else {"coarse_guidance": share} if share else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sampling:
        """The inverse of `to_dict`. Values that are missing are the defaults."""
        return cls().updated(values)

    def updated(self, values: Mapping[str, Any]) -> Sampling:
        """These settings with the values of a dictionary as of `to_dict`; missing ones are kept.

        Raises `MedvarError` or `TypeError` for others.
        """
        values = dict(values)
        if _EVEN in values:
            even = values.pop(_EVEN)
            if not isinstance(even, bool):
                raise MedvarError(f"{_EVEN} must be true or false, but is {even!r:.40}.")
            if "coarse_guidance" in values:
                raise MedvarError(f"Give coarse_guidance or {_EVEN}, not both.")
            values["coarse_guidance"] = float(even)
        return replace(self, **values)

    def at(self, k: int, scales: int) -> Sampling:
        """The settings of scale k of ``scales``: guidance and top-p rise linearly to those of the finest scale."""

        def rising(finest: float, share: float) -> float:
            coarsest = finest * share
            return coarsest + (finest - coarsest) * k / max(1, scales - 1)

        guidance, top_p = rising(self.guidance, self.coarse_guidance), rising(self.top_p, self.coarse_top_p)
        return replace(self, guidance=guidance, top_p=top_p, coarse_guidance=1.0, coarse_top_p=1.0)


def check_seed(seed: int) -> int:
    """``seed`` itself. Raises `MedvarError` if it is not in 0…2⁶⁴-1."""
    if not 0 <= seed <= MAX_SEED:
        raise MedvarError(f"A seed must be an integer from 0 to {MAX_SEED}, but is {seed}.")
    return seed


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
    def from_dict(cls, values: Mapping[str, Any], default: Sampling = Sampling()) -> Request:
        """The inverse of `to_dict`; other entries are ignored. Missing sampling settings are those of ``default``."""
        sampling = dict(values["sampling"])
        skipped = float(sampling.pop(_SKIPPED, 0.0))
        stack = values.get("stack")
        return cls(
            Condition.from_dict(values["condition"]),
            int(values["seed"]),
            default.updated(sampling),
            skipped,
            None if stack is None else StackPlace.from_dict(stack),
        )
