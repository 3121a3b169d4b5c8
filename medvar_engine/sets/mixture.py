"""`Mixture`: the mixture of conditions of a synthetic dataset, which determines the request of image number i."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.request import MAX_SEED, Request, Sampling
from medvar_engine.storage import slug

_TURN = 2**64
# The golden ratio: its multiples modulo 1 fill every interval in proportion to its length, also after few terms (Weyl's
# sequence). The first images of a dataset therefore have nearly the same mixture as the whole dataset.
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Component:
    """One condition of a mixture. ``weight`` is its relative share or, in a mixture of counts, its number of images."""

    condition: Condition
    sampling: Sampling
    seed: int = 0  # seed of image 0; image i has the seed ``seed + i``
    weight: float = 1.0
    skipped: float = 0.0  # see `Request`

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**Request(self.condition, self.seed, self.sampling, self.skipped).to_dict(), "weight": self.weight}


@dataclass(frozen=True, slots=True)
class Mixture:
    """Conditions by weight; if ``counted``, weights are numbers of images, which are made in the given order."""

    components: tuple[Component, ...]
    counted: bool = False

    def __post_init__(self) -> None:
        if not self.components:
            raise MedvarError("A mixture needs at least one condition.")

    @classmethod
    def of(cls, condition: Condition, sampling: Sampling, seed: int = 0) -> Mixture:
        """A mixture of one condition."""
        return cls((Component(condition, sampling, seed),))

    @property
    def total(self) -> int | None:
        """The number of images of a mixture of counts; None for weights."""
        return sum(int(one.weight) for one in self.components) if self.counted else None

    def requests(self, numbers: Sequence[int]) -> list[Request]:
        """The requests of images by number. They do not depend on the number of images."""
        ends = self._ends()
        found = []
        for number in numbers:
            place = number if self.counted else number * _GOLDEN % _TURN
            own = self.components[bisect_right(ends, place)]
            found.append(Request(own.condition, own.seed + number, own.sampling, own.skipped))
        return found

    def check_seeds(self, count: int) -> None:
        """Raises `MedvarError` when the seed of the last of ``count`` images would be too large."""
        for own in self.components:
            if own.seed + count - 1 > MAX_SEED:
                raise MedvarError(
                    f"The largest seed is {MAX_SEED}, but {count} images from the seed {own.seed} on exceed it."
                )

    def folders(self) -> dict[Condition, str]:
        """A file name for each condition, distinct even if case is ignored."""
        found: dict[Condition, str] = {}
        taken: set[str] = set()
        for condition in dict.fromkeys(own.condition for own in self.components):
            name = plain = "-".join(map(slug, condition.words)) or "unconditional"
            number = 1
            while name in taken:  # labels that differ in punctuation only, such as T1+ and T1-
                number += 1
                name = f"{plain}-{number}"
            taken.add(name)
            found[condition] = name
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"counted": self.counted, "ingredients": [one.to_dict() for one in self.components]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Mixture:
        """The inverse of `to_dict`."""
        components = []
        for one in values["ingredients"]:
            request = Request.from_dict(one)
            weight = one["weight"]
            if type(weight) not in (int, float) or not 0 < weight < float("inf"):
                raise MedvarError(f"A weight must be a number above 0, not {weight!r}.")
            components.append(Component(request.condition, request.sampling, request.seed, weight, request.skipped))
        return cls(tuple(components), bool(values["counted"]))

    def _ends(self) -> list[int]:
        """The exact cumulative shares of the conditions: in image numbers, or as fractions of 1."""
        if self.counted:
            return list(accumulate(int(one.weight) for one in self.components))
        whole = sum(Fraction(one.weight) for one in self.components)
        sums = accumulate(Fraction(one.weight) for one in self.components)
        return [int(part / whole * _TURN) for part in sums]
