"""`Structure`: an organ or a lesion that a value of a mask stands for, with its colour."""

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
"""Masks ``(…, H, W)``: the number of the structure at each pixel, counted from 1; 0 for none."""

MOST = 255
"""Largest number of structures in a mask."""

_COLOUR = re.compile(r"#[0-9a-f]{6}")
_LONGEST = 64  # letters of a name
_TURN = 0.61803398875  # part of the colour circle between successive structures, which gives them distinct hues


@dataclass(frozen=True, slots=True)
class Structure:
    """A name such as ``kidney_left``, and a colour as ``#rrggbb``. The first structure has the value 1 in masks."""

    name: str
    colour: str

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > _LONGEST or not self.name.isprintable():
            raise MedvarError(f"The name of a structure must have 1 to {_LONGEST} letters, but is {self.name[:80]!r}.")
        if not _COLOUR.fullmatch(self.colour):
            raise MedvarError(f"The colour of {self.name} must have the form #rrggbb, but is {self.colour[:20]!r}.")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


Structures = tuple[Structure, ...]
"""All structures of a set of masks, in the order of their values from 1 up."""


def structures_of(names: Iterable[str], colours: Mapping[str, str] | None = None) -> Structures:
    """The structures with these names, in this order; those without a colour in ``colours`` get one.

    Raises `MedvarError` for a repeated name, or for more names than a mask can hold.
    """
    names = tuple(names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MedvarError(f"The structure {twice[0]} is listed twice.")
    if len(names) > MOST:
        raise MedvarError(f"A mask can hold at most {MOST} structures, but {len(names)} are listed.")
    given = colours or {}
    return tuple(Structure(name, given.get(name, "").lower() or _colour(i)) for i, name in enumerate(names))


def to_dicts(structures: Structures) -> list[dict[str, Any]]:
    """Plain values for JSON."""
    return [asdict(one) for one in structures]


def from_dicts(values: Iterable[Mapping[str, Any]]) -> Structures:
    """The inverse of `to_dicts`. Raises `MedvarError`, `KeyError` or `TypeError` for invalid values."""
    found = [(str(one["name"]), str(one["colour"])) for one in values]
    return structures_of((name for name, _ in found), dict(found))


def _colour(number: int) -> str:
    hue, turn = (number * _TURN) % 1.0, number // 8 % 3
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.55, 0.95)[turn], (0.95, 0.95, 0.65)[turn])
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
