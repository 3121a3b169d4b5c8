"""The field types of a recipe, with validators for values from YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, PlainValidator, Strict, StringConstraints

from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.recipe.file_patterns import Pattern
from medvar_engine.data.recipe.index_file import normal_label, normal_modality
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted.check_fields import Stated

_T = TypeVar("_T")
_PART = "a named part is the first and the last number, or names with labels."


def _stating(read: Callable[[Any], _T]) -> Callable[[Any], _T]:
    """``read`` as a validator that reports its `MedvarError` for the field."""

    def checked(value: Any) -> _T:
        try:
            return read(value)
        except MedvarError as error:
            raise Stated(str(error)) from error

    return checked


def _pattern(value: Any) -> Any:
    """Convert text to a pattern; pydantic validates other values."""
    return _stating(Pattern)(value) if isinstance(value, str) else value


def _ignored(value: Any) -> Any:
    """Convert a mapping of pattern to reason to pairs."""
    if isinstance(value, Mapping):
        return tuple((_pattern(pattern), reason) for pattern, reason in value.items())
    if isinstance(value, tuple):
        return value
    raise Stated("it must be a list of fields and values: patterns, each with the reason.")


def _harmonisation(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    Recipe.of(**settings)
    return settings


def _part(value: Any) -> range | Mapping[str, str]:
    """The values of a named part: ``[1, 499]``, first and last number; or ``{t1: T1, t2: T2}``, texts and labels."""
    if isinstance(value, range):
        return value
    if isinstance(value, list):
        if len(value) != 2 or not all(type(one) is int for one in value) or value[0] > value[1]:
            raise Stated(_PART)
        return range(value[0], value[1] + 1)
    if not isinstance(value, Mapping) or not value or not all(isinstance(one, str) for one in value.values()):
        raise Stated(_PART)
    return {str(name): label.strip() for name, label in value.items()}


def _address(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise Stated(f"it must be an address that begins with https://, but is {text!r}.")
    return text


def _day(value: object) -> str:
    """A day as text; YAML reads 2026-01-31 as a date, or as text if it is quoted."""
    try:
        return date.fromisoformat(str(value)).isoformat() if value else ""
    except ValueError as error:
        raise Stated(f"it must be a day such as 2026-01-31, but is {str(value)!r}.") from error


AnyText = Annotated[str, Strict(), StringConstraints(strip_whitespace=True)]
Text = Annotated[str, Strict(), StringConstraints(strip_whitespace=True, min_length=1)]
Switch = Annotated[bool, Strict()]
PatientIds = Literal["public", "pseudonym"]
Label = Annotated[Text, AfterValidator(normal_label)]
Modality = Annotated[Text, AfterValidator(_stating(normal_modality))]
FilePattern = Annotated[Pattern, BeforeValidator(_pattern)]
Ignored = Annotated[tuple[tuple[FilePattern, Text], ...], BeforeValidator(_ignored)]
PartValues = Annotated[range | Mapping[str, str], PlainValidator(_part)]
"""The allowed values of a named part: a range of numbers, or a mapping of texts to labels."""
Harmonisation = Annotated[Mapping[str, Any], AfterValidator(_stating(_harmonisation))]
Address = Annotated[Text, AfterValidator(_address)]
Day = Annotated[str, BeforeValidator(_day)]
