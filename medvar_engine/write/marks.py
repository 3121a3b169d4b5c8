"""`Marks`: marks in the pixels themselves, which remain when a file loses its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks in the pixels. There are none by default, because they change values."""

    burned_in: bool = False  # the word SYNTHETIC, see `burn_in`
    invisible: bool = False  # a pattern of half a grey level, see `add_mark`

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.burned_in or self.invisible

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"burned_in": self.burned_in, "invisible_mark": self.invisible}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Marks:
        """The inverse of `to_dict`; missing values mean no mark."""
        return cls(bool(values.get("burned_in", False)), bool(values.get("invisible_mark", False)))


UNMARKED = Marks()
