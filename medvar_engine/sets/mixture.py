"""`Mix`: what a set is made of, and which request image number i is."""

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
# The golden ratio as a share of a turn: multiples of it, taken modulo 1, fill every interval at its share, and stay
# near it all the way (Weyl's sequence). So the first images of a set are mixed as the whole of it is.
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One kind of image in a mix: ``weight`` is its share, against the others'; or in a mix of counts, its number."""

    condition: Condition
    sampling: Sampling
    seed: int = 0  # of image 0; image i has the seed ``seed + i``
    weight: float = 1.0
    skipped: float = 0.0  # see `Request`

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**Request(self.condition, self.seed, self.sampling, self.skipped).to_dict(), "weight": self.weight}


@dataclass(frozen=True, slots=True)
class Mix:
    """Ingredients by weight; or ``counted``, when the weights are numbers of images, made in the order given."""

    ingredients: tuple[Ingredient, ...]
    counted: bool = False

    def __post_init__(self) -> None:
        if not self.ingredients:
            raise MedvarError("A mix has at least one condition.")

    @classmethod
    def of(cls, condition: Condition, sampling: Sampling, seed: int = 0) -> Mix:
        """A mix of one kind of image."""
        return cls((Ingredient(condition, sampling, seed),))

    @property
    def total(self) -> int | None:
        """Images of a mix of counts; None where weights leave it open."""
        return sum(int(one.weight) for one in self.ingredients) if self.counted else None

    def requests(self, numbers: Sequence[int]) -> list[Request]:
        """The requests of some images by number. An image's does not depend on how many there are."""
        ends = self._ends()
        found = []
        for number in numbers:
            place = number if self.counted else number * _GOLDEN % _TURN
            own = self.ingredients[bisect_right(ends, place)]
            found.append(Request(own.condition, own.seed + number, own.sampling, own.skipped))
        return found

    def check_seeds(self, count: int) -> None:
        """Raises `MedvarError` when the last of ``count`` images would have a seed beyond the largest one."""
        for own in self.ingredients:
            if own.seed + count - 1 > MAX_SEED:
                raise MedvarError(f"A seed is at most {MAX_SEED}, but {count} images from the seed {own.seed} pass it.")

    def folders(self) -> dict[Condition, str]:
        """A file name for each condition, no two alike even for a system that ignores case."""
        found: dict[Condition, str] = {}
        taken: set[str] = set()
        for condition in dict.fromkeys(own.condition for own in self.ingredients):
            name = plain = "-".join(map(slug, condition.words)) or "unconditional"
            number = 1
            while name in taken:  # labels that differ in signs only: T1+ and T1-
                number += 1
                name = f"{plain}-{number}"
            taken.add(name)
            found[condition] = name
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"counted": self.counted, "ingredients": [one.to_dict() for one in self.ingredients]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Mix:
        """The inverse of `to_dict`."""
        ingredients = []
        for one in values["ingredients"]:
            request = Request.from_dict(one)
            weight = one["weight"]
            if type(weight) not in (int, float) or not 0 < weight < float("inf"):
                raise MedvarError(f"A weight is a number above 0, not {weight!r}.")
            ingredients.append(Ingredient(request.condition, request.sampling, request.seed, weight, request.skipped))
        return cls(tuple(ingredients), bool(values["counted"]))

    def _ends(self) -> list[int]:
        """Where each ingredient ends: in image numbers, or in parts of a turn, exactly."""
        if self.counted:
            return list(accumulate(int(one.weight) for one in self.ingredients))
        whole = sum(Fraction(one.weight) for one in self.ingredients)
        sums = accumulate(Fraction(one.weight) for one in self.ingredients)
        return [int(part / whole * _TURN) for part in sums]
