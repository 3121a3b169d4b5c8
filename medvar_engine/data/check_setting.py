"""Check settings that people write, on the command line or in a recipe."""

from __future__ import annotations

from medvar_engine.errors import MedvarError


def within(what: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Raise `MedvarError` unless ``value`` is a number, or a ``whole`` one, from ``low`` to ``high``."""
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        raise MedvarError(f"{what} is {kind} from {low:g} to {high:g}, but got {value!r}.")
