"""Turns validation errors of pydantic into one plain sentence."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

Location = tuple[int | str, ...]
"""Where a value is in a file: names of fields, and numbers of entries of lists."""

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
    "dict": "a list of fields and values",
    "mapping": "a list of fields and values",
    "dataclass": "a list of fields and values",
    "too": "a list of at least one entry",
    "value": "a number",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}


class Stated(ValueError):  # noqa: N818
    """What is wrong with a value, for a validator to raise; `sentence` repeats it after the place of the value."""


def number(value: object) -> object:
    """``value`` itself. Raises `ValueError` for true and false, which pydantic accepts as numbers."""
    if isinstance(value, bool):
        raise ValueError(value)
    return value


def first_error(error: ValidationError) -> Mapping[str, Any]:
    """The error to report: a name that is not known comes before all others, since it explains a missing one."""
    return min(error.errors(include_url=False), key=lambda one: one["type"] not in _UNKNOWN)


def sentence(found: Mapping[str, Any], known: Mapping[str, Collection[str]], how_to_give: str = "in the file") -> str:
    """What is wrong, where, and what was expected.

    Args:
        found: from `first_error`.
        known: names of the fields at the top, under ``""``, and of those inside a field, under its name.
        how_to_give: how a missing setting is given; ``{name}`` stands for it.
    """
    location, kind, value, limits = found["loc"], str(found["type"]), found["input"], found.get("ctx", {})
    where = shown_location(location)
    if kind in _UNKNOWN:
        return unknown_field(where, str(location[-1]), known[_enclosing(location)])
    if isinstance(stated := limits.get("error"), Stated):
        return f"{where}: {stated}" if where else str(stated)
    if kind == "missing":
        return f"Missing setting {where!r}: give it {how_to_give.format(name=where)}."
    if kind == "literal_error":
        choices = str(limits["expected"]).replace("'", "").replace(" or ", ", ")
        return f"{where} is one of {choices}, not {_shown(value)}."
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{where} must be {words} {limits[key]}, but is {_shown(value)}."
    return f"{where or 'it'} must be {_KINDS.get(kind.split('_')[0], 'another value')}, but is {_shown(value)}."


def shown_location(location: Location) -> str:
    """E.g. ``entries[0].files[1]``."""
    text = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in location)
    return text.removeprefix(".")


def unknown_field(where: str, name: str, known: Collection[str]) -> str:
    """The message for an unknown setting, with the most similar known one."""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown setting {where!r}.{meant} The settings are {', '.join(known)}."


def _enclosing(location: Location) -> str:
    """The name of the field that a field is in; empty at the top."""
    return next((one for one in reversed(location[:-1]) if isinstance(one, str)), "")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
