"""Read `DatasetRecipe` from YAML: the ones that come with the package, and those that people write."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from medvar_engine.data.recipe.dataset_recipe import PATIENT_IDS, DatasetRecipe, Entry, Part, names_in
from medvar_engine.data.recipe.file_patterns import Pattern
from medvar_engine.data.recipe.index_file import normal_label, normal_modality
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted import plain_yaml

TEMPLATE = "template"
LARGEST_FILE = 64 * 1024
SUFFIXES = (".yaml", ".yml")

_T = TypeVar("_T")


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(name for path in _folder().iterdir() if (name := _stem(path.name)) and name != TEMPLATE)


def load_recipe(name_or_path: str | Path) -> DatasetRecipe:
    """A recipe that comes with the package, by name, or one in a YAML file.

    Raises `MedvarError` naming the file, the field, and what is expected there.
    """
    text = str(name_or_path)
    if text.lower().endswith(SUFFIXES) or isinstance(name_or_path, Path):
        return _read(Path(name_or_path))
    if text not in (*recipe_names(), TEMPLATE):
        raise MedvarError(
            f"There is no recipe {text!r}. Recipes are {', '.join(recipe_names())}; "
            "or name a file of your own that ends in .yaml."
        )
    return _read(_folder() / f"{text}.yaml")


def _folder() -> Path:
    return Path(str(resources.files("medvar_engine.data.recipe") / "shipped"))


def _stem(file: str) -> str:
    return file[: -len(".yaml")] if file.endswith(".yaml") else ""


def _read(path: Path) -> DatasetRecipe:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise MedvarError(f"{path} is too large for a recipe ({LARGEST_FILE // 1024} kB at most).")
        values = plain_yaml.loads(plain_yaml.read_text(path), _OnceLoader)
    except (OSError, ValueError) as error:
        raise MedvarError(f"The recipe {path} cannot be read ({error}).") from error
    try:
        return _dataset(_Fields(values, ""))
    except MedvarError as error:
        raise MedvarError(f"The recipe {path}: {error}") from error


class _OnceLoader(plain_yaml.PlainLoader):
    """Like `PlainLoader`, but a field that is there twice is an error, where YAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"field {twice[0]} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


class _Fields:
    """The fields of one mapping, taken one by one; what nobody took is unknown, and refused."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise MedvarError(f"{where.rstrip('.') or 'it'} is a list of fields and values, but got {_shown(values)}.")
        self._values = dict(values)
        self._where = where
        self._known: list[str] = []

    def take(self, name: str, read: Callable[[object, str], _T], default: _T | None = None) -> _T:
        """The value of a field; ``default`` where it is not there, and no default means that it must be."""
        self._known.append(name)
        value = self._values.pop(name, None)
        if value is not None:
            return read(value, f"{self._where}{name}")
        if default is None:
            raise MedvarError(f"field {self._where}{name} is missing.")
        return default

    def end(self) -> None:
        """Raise `MedvarError` when a field was not taken."""
        if self._values:
            unknown = next(iter(self._values))
            raise MedvarError(f"unknown field {self._where}{unknown}; the fields are {', '.join(self._known)}.")


def _dataset(fields: _Fields) -> DatasetRecipe:
    name = fields.take("name", _text)
    recipe = DatasetRecipe(
        name=name,
        title=fields.take("title", _text),
        url=fields.take("url", _text, ""),
        licence=fields.take("licence", _text),
        citation=fields.take("citation", _text, ""),
        patient_ids=fields.take("patient_ids", _one_of(PATIENT_IDS)),
        dataset=normal_label(fields.take("dataset", _text, "")) or None,
        index=fields.take("index", _boolean, False),
        entries=tuple(fields.take("entries", _list_of(_entry), [])),
        ignore=tuple(fields.take("ignore", _ignore, [])),
        harmonise=fields.take("harmonise", _mapping, {}),
        quirks=tuple(fields.take("quirks", _list_of(_text), [])),
        notes=fields.take("notes", _text, ""),
        sources=fields.take("sources", _sources, {}),
        verified=fields.take("verified", _day, ""),
    )
    fields.end()
    if bool(recipe.sources) != bool(recipe.verified):
        raise MedvarError("verified is the day on which the sources were read: give both, or neither.")
    if recipe.index == bool(recipe.entries):
        raise MedvarError("entries is a list of at least one kind of scan, or else index is true, but not both.")
    try:
        recipe.recipe()
    except MedvarError as error:
        raise MedvarError(f"harmonise: {error}") from error
    return recipe


def _entry(value: object, where: str) -> Entry:
    fields = _Fields(value, f"{where}.")
    entry = Entry(
        modality=fields.take("modality", _modality),
        region=normal_label(fields.take("region", _text)),
        files=tuple(fields.take("files", _list_of(_pattern))),
        patient=fields.take("patient", _text),
        contrast=fields.take("contrast", _text, "") or None,
        parts=fields.take("parts", _parts, {}),
        channels=tuple(fields.take("channels", _list_of(_text), [])),
        use=tuple(fields.take("use", _list_of(_text), [])),
    )
    fields.end()
    if not entry.files:
        raise MedvarError(f"{where}.files is a list of at least one pattern.")
    for pattern in entry.files:
        asked = names_in(entry.patient) | names_in(entry.contrast or "") | set(entry.parts)
        if absent := sorted(asked - pattern.names):
            raise MedvarError(f"{where}: the pattern {pattern.text!r} has no part {{{absent[0]}}}, which is used.")
    if not names_in(entry.patient):
        raise MedvarError(f"{where}.patient has no named part such as {{case}}, so all patients would be one.")
    if unknown := [channel for channel in entry.use if channel not in entry.channels]:
        raise MedvarError(f"{where}.use: {unknown[0]} is none of the channels ({', '.join(entry.channels) or 'none'}).")
    if entry.channels and not entry.use:
        raise MedvarError(f"{where}.use names the channels that are used, of {', '.join(entry.channels)}.")
    if len(set(entry.channels)) < len(entry.channels):
        raise MedvarError(f"{where}.channels has a name twice.")
    return entry


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise MedvarError(f"{where} is a text, but got {_shown(value)}.")
    return value.strip()


def _boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise MedvarError(f"{where} is true or false, but got {_shown(value)}.")
    return value


def _mapping(value: object, where: str) -> dict[str, Any]:
    _Fields(value, f"{where}.")
    assert isinstance(value, dict)
    return value


def _one_of(choices: tuple[str, ...]) -> Callable[[object, str], str]:
    def read(value: object, where: str) -> str:
        if value not in choices:
            raise MedvarError(f"{where} is one of {', '.join(choices)}, but got {_shown(value)}.")
        return str(value)

    return read


def _list_of(read: Callable[[object, str], _T]) -> Callable[[object, str], list[_T]]:
    def read_list(value: object, where: str) -> list[_T]:
        if not isinstance(value, list):
            raise MedvarError(f"{where} is a list, but got {_shown(value)}.")
        return [read(one, f"{where}[{number}]") for number, one in enumerate(value)]

    return read_list


def _modality(value: object, where: str) -> str:
    try:
        return normal_modality(_text(value, where))
    except MedvarError as error:
        raise MedvarError(f"{where}: {error}") from error


def _pattern(value: object, where: str) -> Pattern:
    try:
        return Pattern(_text(value, where))
    except MedvarError as error:
        raise MedvarError(f"{where}: {error}") from error


def _ignore(value: object, where: str) -> list[tuple[Pattern, str]]:
    return [
        (_pattern(pattern, where), _text(why, f"{where}.{pattern}")) for pattern, why in _mapping(value, where).items()
    ]


def _sources(value: object, where: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(_list_of(_address)(one, f"{where}.{name}")) for name, one in _mapping(value, where).items()}


def _day(value: object, where: str) -> str:
    """YAML reads 2026-01-31 as a date, and within quotes as a text; both will do."""
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError as error:
        raise MedvarError(f"{where} is a day such as 2026-01-31, but got {_shown(value)}.") from error


def _address(value: object, where: str) -> str:
    text = _text(value, where)
    if not text.startswith(("https://", "http://")):
        raise MedvarError(f"{where} is an address that begins with https://, but got {_shown(value)}.")
    return text


def _parts(value: object, where: str) -> dict[str, Part]:
    return {name: _part(one, f"{where}.{name}") for name, one in _mapping(value, where).items()}


def _part(value: object, where: str) -> Part:
    """``[1, 499]``, a first and a last number; or ``{t1: T1, t2: T2}``, texts and their labels."""
    if isinstance(value, list):
        if len(value) != 2 or not all(type(one) is int for one in value) or value[0] > value[1]:
            raise MedvarError(f"{where} is the first and the last number, or names with labels; got {_shown(value)}.")
        return range(value[0], value[1] + 1)
    if not isinstance(value, dict) or not value:
        raise MedvarError(f"{where} is the first and the last number, or names with labels; got {_shown(value)}.")
    return {str(name): _text(label, f"{where}.{name}") for name, label in value.items()}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
