"""Writes ``docs/reference/training-settings.md``: every setting of ``medvar train``, with its description.

Run ``python docs/training_settings.py`` after every change of a setting.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

from medvar_engine.train.config import TrainConfig

PAGE = Path(__file__).parent / "reference" / "training-settings.md"
_HEAD = """# Training settings

*For people who write a recipe or look up a setting of `medvar train`.*

A recipe is a TOML or YAML file with these names. Each of them can also be given, or changed, as `name=value` on the
command line. `None` means not set; `name=null` removes a value that a recipe sets.
[Train on your own scans](../how-to/train-your-own.md) explains how they are used together.
"""
_TYPES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    Path: "path",
    tuple[str, ...]: "list of names",
}


def page() -> str:
    """The page: a section for each of the classes that `TrainConfig` is made of."""
    return "\n".join([_HEAD, *(line for settings in TrainConfig.__bases__ for line in _section(settings))])


def _section(settings: type[Any]) -> Iterator[str]:
    types = typing.get_type_hints(settings)
    about = inspect.cleandoc(settings.__doc__ or "").replace("``", "`")
    yield f"## {settings.__name__.removesuffix('Settings')}\n\n{about}\n"
    yield "| name | value | default | meaning |\n|---|---|---|---|"
    for field in dataclasses.fields(settings):
        meaning = settings.__pydantic_fields__[field.name].description.replace("|", "\\|")  # a bar would end the cell
        yield f"| `{field.name}` | {_type(types[field.name])} | {_default(field.default)} | {meaning} |"
    yield ""


def _type(hint: Any) -> str:
    """In words; what may be `None` says so by its default or its meaning."""
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    alternatives = [one for one in typing.get_args(hint) if one is not NoneType]
    return _TYPES[hint if hint in _TYPES else alternatives[0]]


def _default(value: object) -> str:
    """As a recipe would write it."""
    if value is dataclasses.MISSING:
        return "must be given"
    if isinstance(value, bool):
        return f"`{value}`".lower()
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}")
