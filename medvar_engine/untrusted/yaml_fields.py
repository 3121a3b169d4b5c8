"""Reads YAML files that users write and checks them with pydantic; errors name the file, line and field."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from medvar_engine.errors import MedvarError
from medvar_engine.untrusted import plain_yaml
from medvar_engine.untrusted.check_fields import Location, first_error, sentence

_T = TypeVar("_T")
_LISTS, _MAPPINGS = "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"


class FieldsFile(Generic[_T]):
    """The checked ``value`` of a file, and where each of its fields stands."""

    def __init__(self, value: _T, place: Callable[[Location], str]) -> None:
        self.value, self.place = value, place


def read_fields(
    path: Path, what: str, kind: type[_T], known: Mapping[str, Collection[str]], limit: int = plain_yaml.MAX_BYTES
) -> FieldsFile[_T]:
    """A YAML file as a ``kind``.

    Args:
        path: the file.
        what: what it is, for messages, such as "recipe".
        kind: a pydantic dataclass or a typed dictionary.
        known: see `sentence`.
        limit: most bytes of the file.

    Raises:
        MedvarError: naming the file, the line, the field, and what is expected there.
    """
    try:
        if path.is_file() and path.stat().st_size > limit:
            raise MedvarError(f"The {what} {path} is too large ({limit // 1024} kB at most).")
        text = plain_yaml.read_text(path)
    except (OSError, ValueError) as error:
        raise MedvarError(f"The {what} {path} cannot be read: {error}.") from error
    lines: dict[Location, int] = {}

    def place(location: Location) -> str:
        """The file, and the line of a field or else of what it is in."""
        while location and location not in lines:
            location = location[:-1]
        return f"{path}, line {lines.get(location, 1)}"

    try:
        loader = plain_yaml.PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise MedvarError(f"The {what} {path} is empty; it must be a list of fields and values.")
        values = _plain(loader, node, (), lines)
    except plain_yaml.INVALID as error:
        raise MedvarError(f"The {what} {path} cannot be read, because it is not YAML: {error}.") from error
    except _Misplaced as error:
        raise MedvarError(f"{path}, line {error.line}: {error}") from error
    try:
        return FieldsFile(TypeAdapter(kind).validate_python(values), place)
    except ValidationError as error:
        found = first_error(error)
        raise MedvarError(f"{place(found['loc'])}: {sentence(found, known)}") from error


class _Misplaced(Exception):  # noqa: N818
    def __init__(self, node: yaml.Node, text: str) -> None:
        super().__init__(text)
        self.line = node.start_mark.line + 1


def _plain(loader: plain_yaml.PlainLoader, node: yaml.Node, at: Location, lines: dict[Location, int]) -> Any:
    """The value of ``node``, which is ``at`` this place; notes the ``lines`` of all fields in it."""
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_object(node)  # type: ignore[no-untyped-call]
    if node.tag == _LISTS:
        return [_plain(loader, one, (*at, number), lines) for number, one in enumerate(node.value)]
    if node.tag != _MAPPINGS:
        raise _Misplaced(node, f"a value of the kind {node.tag} cannot be read; write a plain one.")
    found: dict[Any, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Misplaced(key, "the name of a field is expected here.")
        name = loader.construct_object(key)  # type: ignore[no-untyped-call]
        if name in found:
            raise _Misplaced(key, f"the field {name} is repeated.")
        lines[*at, name] = key.start_mark.line + 1
        found[name] = _plain(loader, value, (*at, name), lines)
    return {name: value for name, value in found.items() if value is not None}  # a name alone is as if left out
