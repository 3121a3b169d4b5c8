"""`Structure`: what a value of a mask stands for, an organ or a lesion; and the colours in which they are shown."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvar_engine.errors import MedvarError

MaskArray = NDArray[np.uint8]
"""Masks: the number of the structure that each pixel shows, counted from 1; 0 where it shows none."""

MOST = 255
"""Structures that a mask can tell apart."""

_COLOUR = re.compile(r"#[0-9a-f]{6}")
_LONGEST = 64  # letters of a name
_TURN = 0.61803398875  # of the circle of hues, from one structure to the next: neighbours are far apart


@dataclass(frozen=True, slots=True)
class Structure:
    """A name such as ``kidney_left``, and a colour as ``#rrggbb``. The first of several has the value 1 in masks."""

    name: str
    colour: str

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > _LONGEST or not self.name.isprintable():
            raise MedvarError(f"The name of a structure is 1 to {_LONGEST} letters, but got {self.name[:80]!r}.")
        if not _COLOUR.fullmatch(self.colour):
            raise MedvarError(f"The colour of {self.name} is written as #rrggbb, but got {self.colour[:20]!r}.")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


Structures = tuple[Structure, ...]
"""All structures of a set of masks, in the order of their values."""


def structures_of(names: Iterable[str], colours: Mapping[str, str] | None = None) -> Structures:
    """The structures of these names, in their order; those without a colour in ``colours`` get one.

    Raises `MedvarError` for a name that is there twice, and for more names than a mask can tell apart.
    """
    names = tuple(names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MedvarError(f"The structure {twice[0]} is named twice.")
    if len(names) > MOST:
        raise MedvarError(f"A mask tells at most {MOST} structures apart, but {len(names)} are named.")
    given = colours or {}
    return tuple(Structure(name, given.get(name, "").lower() or _colour(i)) for i, name in enumerate(names))


def to_dicts(structures: Structures) -> list[dict[str, Any]]:
    """Plain values, for JSON."""
    return [asdict(one) for one in structures]


def from_dicts(values: Iterable[Mapping[str, Any]]) -> Structures:
    """The inverse of `to_dicts`. Raises `MedvarError`, `KeyError` or `TypeError` for anything else."""
    found = [(str(one["name"]), str(one["colour"])) for one in values]
    return structures_of((name for name, _ in found), dict(found))


def _colour(number: int) -> str:
    hue, turn = (number * _TURN) % 1.0, number // 8 % 3
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.55, 0.95)[turn], (0.95, 0.95, 0.65)[turn])
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
