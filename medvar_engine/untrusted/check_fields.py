"""What pydantic says is wrong with the fields of a file, as one plain sentence."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

_UNKNOWN = "unexpected_keyword_argument"
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "tuple": "a list of names",
    "value": "a number",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}


def number(value: object) -> object:
    """``value``. Raises `ValueError` for true and false, which pydantic would take for numbers."""
    if isinstance(value, bool):
        raise ValueError(value)
    return value


def sentence(error: ValidationError, known: Collection[str]) -> str:
    """The first error of a mapping whose fields are ``known``; a name that is not known comes before all others."""
    all_found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != _UNKNOWN)
    found: Mapping[str, Any] = all_found[0]
    name, kind, value, limits = str(found["loc"][0]), str(found["type"]), found["input"], found.get("ctx", {})
    if kind == _UNKNOWN:
        return unknown_field(name, known)
    if kind == "missing":
        return f"Missing setting {name!r}: give it in the config file or as {name}=VALUE."
    if kind == "literal_error":
        choices = str(limits["expected"]).replace("'", "").replace(" or ", ", ")
        return f"{name} is one of {choices}, not {value!r}."
    if len(found["loc"]) > 1:
        return f"{name} must be a list of names, but holds {value!r}."
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{name} must be {words} {limits[key]}, but is {value}."
    return f"{name} must be {_KINDS.get(kind.split('_')[0], 'another value')}, but is {value!r}."


def unknown_field(name: str, known: Collection[str]) -> str:
    """That there is no setting ``name``, and which one may be meant."""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown setting {name!r}.{meant} The settings are {', '.join(known)}."
