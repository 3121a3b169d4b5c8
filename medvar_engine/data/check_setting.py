"""Checks of settings from the command line or a recipe."""

from __future__ import annotations

from medvar_engine.errors import MedvarError


def within(what: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Raise `MedvarError` unless ``value`` is a number, or a ``whole`` one, from ``low`` to ``high``."""
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        raise MedvarError(f"{what} must be {kind} from {low:g} to {high:g}, but is {value!r}.")
