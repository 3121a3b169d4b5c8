"""`Marks`: what is written into the pixels themselves, so that it stays when a file loses all that it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Marks:
    """Which marks pixels bear. None by default: they change values."""

    burned_in: bool = False  # SYNTHETIC in letters, see `burn_in`
    invisible: bool = False  # a pattern of half a gray level, see `add_mark`

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.burned_in or self.invisible

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"burned_in": self.burned_in, "invisible_mark": self.invisible}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Marks:
        """The inverse of `to_dict`; what is not told is not there."""
        return cls(bool(values.get("burned_in", False)), bool(values.get("invisible_mark", False)))


UNMARKED = Marks()
