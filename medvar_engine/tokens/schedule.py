"""`ScaleSchedule`: the side lengths of the token pyramid, coarse to fine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medvar_engine.errors import MedvarError

MAX_SIDE = 256
"""Largest number of tokens per side of the finest scale; VAR has 16 for images of 256 pixels."""


@dataclass(frozen=True, slots=True)
class ScaleSchedule:
    """Side lengths ``(side_0, …, side_{K-1})``; scale ``k`` has ``side_k²`` tokens.

    VAR's schedule for 256×256 images is ``(1, 2, 3, 4, 5, 6, 8, 10, 13, 16)``: 10 scales, 680 tokens.
    """

    sides: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sides", tuple(int(side) for side in self.sides[: MAX_SIDE + 1]))
        if not self.sides or self.sides[0] < 1 or any(b <= a for a, b in zip(self.sides, self.sides[1:], strict=False)):
            raise MedvarError(
                f"A scale schedule must be an increasing list of sides of 1 or more, but is {list(self.sides)}."
            )
        if self.sides[-1] > MAX_SIDE:
            raise MedvarError(
                f"The finest scale may have at most {MAX_SIDE} tokens per side, but has {self.sides[-1]}."
            )

    def __len__(self) -> int:
        return len(self.sides)

    def __iter__(self) -> Iterator[int]:
        return iter(self.sides)

    def __getitem__(self, k: int) -> int:
        return self.sides[k]

    @property
    def latent_side(self) -> int:
        """Side length of the latent, which is the side of the finest scale."""
        return self.sides[-1]

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Number of tokens of each scale, ``side²``."""
        return tuple(side * side for side in self.sides)

    @property
    def offsets(self) -> tuple[int, ...]:
        """``K + 1`` offsets into the sequence of all tokens; scale ``k`` is ``offsets[k]:offsets[k + 1]``."""
        total, result = 0, [0]
        for count in self.token_counts:
            total += count
            result.append(total)
        return tuple(result)

    @property
    def tokens(self) -> int:
        """Number of tokens of a whole pyramid."""
        return sum(self.token_counts)

    def check_scale(self, k: int) -> int:
        """``k`` itself. Raises `MedvarError` if there is no such scale."""
        if not 0 <= k < len(self):
            raise MedvarError(f"Scale {k} is out of range: this model has scales 0…{len(self) - 1} (sides {self}).")
        return k

    def __str__(self) -> str:
        return ", ".join(str(side) for side in self.sides)
