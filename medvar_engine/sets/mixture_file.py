"""Reads a `Mix` from a YAML file, with errors that name the line.

::

    seed: 0                      # seed of image 0; image i has the seed seed + i
    sampling: {guidance: 2.0}    # missing values are those of the bundle
    conditions:
      - {modality: CT, region: chest, plane: axial, weight: 3}
      - {modality: MR, region: brain, weight: 1, sampling: {top_p: 0.9}}

Instead of ``weight``, every condition can have ``count``, a number of images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import FACTORS, Condition
from medvar_engine.errors import MedvarError
from medvar_engine.request import Sampling, check_seed
from medvar_engine.sets.mixture import Ingredient, Mix
from medvar_engine.untrusted import plain_yaml

LARGEST_FILE = 2**18
_TOP = ("seed", "sampling", "conditions")
_ENTRY = (*FACTORS, "weight", "count", "seed", "sampling")


@dataclass(frozen=True, slots=True)
class _Field:
    """A value and its line, counted from 1."""

    value: Any
    line: int


def read_mix(path: Path, bundle: Bundle) -> Mix:
    """Read a mixture for a bundle. Raises `MedvarError` that names the file, the line, and what is expected there."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise MedvarError(f"{path} is too large for a mixture ({LARGEST_FILE // 1024} kB at most).")
        loader = plain_yaml.PlainLoader(plain_yaml.read_text(path))
        node = loader.get_single_node()
        if node is None:
            raise MedvarError(f"{path} is empty. A mixture needs conditions.")
        return _mix(path, loader, node, bundle)
    except OSError as error:
        raise MedvarError(f"Cannot read the mixture {path}: {error.strerror or error}.") from error
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # e.g. text that is not UTF-8, or a date with month 13
        raise MedvarError(f"The mixture {path} is not YAML: {error}.") from error


def _mix(path: Path, loader: yaml.SafeLoader, node: yaml.Node, bundle: Bundle) -> Mix:
    with _at(path, node):
        top = _fields(loader, node, _TOP)
    seed = _whole(path, top, "seed", 0)
    sampling = _sampling(path, top, bundle.sampling)
    entries = next((own for key, own in _pairs(node) if key.value == "conditions"), None)
    if not isinstance(entries, yaml.SequenceNode) or not entries.value:
        raise MedvarError(f"{path}: a mixture needs a list `conditions` with at least one entry.")
    ingredients, counted = [], []
    for number, entry in enumerate(entries.value, 1):
        with _at(path, entry, f"condition {number}"):
            fields = _fields(loader, entry, _ENTRY)
            if "weight" in fields and "count" in fields:
                raise MedvarError("a condition can have a weight or a count, not both.")
            condition = Condition.from_dict({name: fields[name].value for name in FACTORS if name in fields})
            bundle.labels.encode(condition)
        own_seed, count = _whole(path, fields, "seed", seed), _whole(path, fields, "count", 1)
        if not count:
            raise MedvarError(f"{path}, line {fields['count'].line}: a count must be 1 or more.")
        weight, own_sampling = count if "count" in fields else _weight(path, fields), _sampling(path, fields, sampling)
        ingredients.append(Ingredient(condition, own_sampling, own_seed, weight))
        counted.append("count" in fields)
    if len(set(counted)) > 1:
        raise MedvarError(
            f"{path}: condition {counted.index(not counted[0]) + 1}: either all conditions need a count, or none."
        )
    return Mix(tuple(ingredients), counted[0])


@contextmanager
def _at(path: Path, node: yaml.Node, what: str = "") -> Iterator[None]:
    try:
        yield
    except MedvarError as error:
        where = f", {what}" if what else ""
        raise MedvarError(f"{path}, line {node.start_mark.line + 1}{where}: {error}") from error


def _pairs(node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _fields(loader: yaml.SafeLoader, node: yaml.Node, known: tuple[str, ...]) -> dict[str, _Field]:
    """The scalar and ``sampling`` fields of a mapping. Raises `MedvarError` for unknown or repeated fields."""
    if not isinstance(node, yaml.MappingNode):
        raise MedvarError(f"fields and values are expected here ({', '.join(known)}).")
    found: dict[str, _Field] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value not in known:
            raise MedvarError(
                f"unknown field {str(key.value)[:40]!r} in line {line}; the fields are {', '.join(known)}."
            )
        if key.value in found:
            raise MedvarError(f"the field {key.value} is repeated in line {line}.")
        # The list of conditions is read entry by entry, so that each has a line number.
        found[key.value] = _Field(None if key.value == "conditions" else _plain(loader, value), line)
    return found


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """A scalar, or the scalars of a mapping; nothing deeper, so that aliases cannot expand."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _Field(_scalar(loader, own), key.start_mark.line + 1) for key, own in node.value}
    return _scalar(loader, node)


def _scalar(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise MedvarError(f"a single value is expected in line {node.start_mark.line + 1}.")
    return loader.construct_object(node)  # type: ignore[no-untyped-call]


def _whole(path: Path, fields: Mapping[str, _Field], name: str, default: int) -> int:
    if name not in fields:
        return default
    value, line = fields[name].value, fields[name].line
    if type(value) is not int:
        raise MedvarError(f"{path}, line {line}: {name} must be a whole number, but is {value!r}.")
    try:
        return check_seed(value)
    except MedvarError as error:
        raise MedvarError(f"{path}, line {line}: {name}: {error}") from error


def _weight(path: Path, fields: Mapping[str, _Field]) -> float:
    own = fields.get("weight", _Field(1, 0))
    if type(own.value) not in (int, float) or not 0 < own.value <= 1e12 or own.value < 1e-12:
        raise MedvarError(f"{path}, line {own.line}: a weight must be a number above 0, but is {own.value!r}.")
    return float(own.value)


def _sampling(path: Path, fields: Mapping[str, _Field], default: Sampling) -> Sampling:
    """``default`` with the changes of the field ``sampling``."""
    if "sampling" not in fields:
        return default
    whole, line = fields["sampling"].value, fields["sampling"].line
    names = tuple(field.name for field in dataclasses.fields(Sampling))
    if not isinstance(whole, dict):
        raise MedvarError(f"{path}, line {line}: sampling must have fields among {', '.join(names)}, but is {whole!r}.")
    changed = {}
    for name, own in whole.items():
        if name not in names:
            raise MedvarError(
                f"{path}, line {own.line}: unknown sampling field {name!r}. The fields are {', '.join(names)}."
            )
        if type(own.value) not in (int, float) or not math.isfinite(own.value):
            raise MedvarError(f"{path}, line {own.line}: {name} must be a number, but is {own.value!r}.")
        changed[name] = own.value
    try:
        return Sampling(**{**default.to_dict(), **changed})
    except MedvarError as error:
        raise MedvarError(f"{path}, line {line}: {error}") from error
