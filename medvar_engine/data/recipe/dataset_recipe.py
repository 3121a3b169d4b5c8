"""`DatasetRecipe`: describes the files of a data set by their paths, and how to harmonise them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.recipe.index_file import INDEX
from medvar_engine.data.recipe.recipe_fields import (
    Address,
    AnyText,
    Day,
    FilePattern,
    Harmonisation,
    Ignored,
    Label,
    Modality,
    PartValues,
    PatientIds,
    Switch,
    Text,
)
from medvar_engine.errors import MedvarError
from medvar_engine.untrusted.check_fields import Stated

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
_NAME = re.compile(r"\{(\w+)\}")


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """The description of one file by the recipe."""

    entry: Entry
    patient: str
    contrast: str | None


@dataclass(frozen=True, config=_STRICT)
class Entry:
    """One type of scan in a dataset."""

    modality: Annotated[Modality, Field(description="CT or MR")]
    region: Annotated[Label, Field(description="body region")]
    files: Annotated[
        tuple[FilePattern, ...], Field(min_length=1, description="patterns, one of which its files look like")
    ]
    patient: Annotated[Text, Field(description="id of the patient: a text with named parts")]
    contrast: Annotated[Text | None, Field(description="a text with named parts")] = None
    parts: Annotated[Mapping[str, PartValues], Field(description="allowed values of named parts")] = dataclasses.field(
        default_factory=dict
    )
    channels: Annotated[tuple[Text, ...], Field(description="contrasts of the phases of a 4-D file")] = ()
    use: Annotated[tuple[Text, ...], Field(description="the channels to read")] = ()

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        for pattern in self.files:
            asked = names_in(self.patient) | names_in(self.contrast or "") | set(self.parts)
            if absent := sorted(asked - pattern.names):
                raise Stated(f"the pattern {pattern.text!r} has no part {{{absent[0]}}}, which is used.")
        if not names_in(self.patient):
            raise Stated("patient has no named part such as {case}, so all patients would be one.")
        if unknown := [channel for channel in self.use if channel not in self.channels]:
            raise Stated(f"use: {unknown[0]} is none of the channels ({', '.join(self.channels) or 'none'}).")
        if self.channels and not self.use:
            raise Stated(f"use names the channels that are used, of {', '.join(self.channels)}.")
        if len(set(self.channels)) < len(self.channels):
            raise Stated("channels has a name twice.")
        return self

    def match(self, path: Path) -> Match | None:
        """The description of a file, or None if it does not belong to this entry."""
        for pattern in self.files:
            texts = pattern.parts(path)
            if texts is None:
                continue
            labels = {name: self._label(name, text) for name, text in texts.items()}
            if None not in labels.values():
                return Match(self, fill(self.patient, texts), fill(self.contrast, labels) if self.contrast else None)
        return None

    def _label(self, name: str, text: str) -> str | None:
        """The label of the text of a named part; None if the text is not allowed."""
        allowed = self.parts.get(name)
        if allowed is None:
            return text
        if isinstance(allowed, range):
            return text if text.isascii() and text.isdecimal() and int(text) in allowed else None
        return next((label for key, label in allowed.items() if key.casefold() == text.casefold()), None)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DatasetRecipe:
    """One dataset: its licence, its files and their content, and its peculiarities."""

    name: Annotated[Text, Field(description="short name, for messages")]
    title: Annotated[Text, Field(description="full name")]
    url: Annotated[AnyText, Field(description="where to get it")] = ""
    licence: Annotated[Text, Field(description="licence, as it must be stated")]
    citation: Annotated[AnyText, Field(description="what to cite")] = ""
    patient_ids: Annotated[PatientIds, Field(description="public where the dataset's own ids may be kept")]
    entries: Annotated[tuple[Entry, ...], Field(description="kinds of scan; the first that fits a file applies")] = ()
    dataset: Annotated[Label | None, Field(description="label to condition on")] = None
    ignore: Annotated[Ignored, Field(description="files that must not be read, and why")] = ()
    harmonise: Annotated[Harmonisation, Field(description="settings of `Recipe`")] = dataclasses.field(
        default_factory=dict
    )
    index: Annotated[Switch, Field(description="an index.csv says what the files are; there are no entries")] = False
    quirks: Annotated[tuple[Text, ...], Field(description="what is special about the files")] = ()
    notes: Annotated[AnyText, Field(description="what else to know")] = ""
    sources: Annotated[
        Mapping[str, tuple[Address, ...]], Field(description="addresses that confirm the recipe, by topic")
    ] = dataclasses.field(default_factory=dict)
    verified: Annotated[Day, Field(description="day on which the sources were read, as in 2026-01-31")] = ""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if bool(self.sources) != bool(self.verified):
            raise Stated("verified is the day on which the sources were read: give both, or neither.")
        if self.index == bool(self.entries):
            raise Stated("entries is a list of at least one kind of scan, or else index is true, but not both.")
        return self

    def recipe(self, **asked: Any) -> Recipe:
        """The harmonisation of its scans: settings ``asked`` for, or else of the data set, or else the defaults."""
        return Recipe.of(**{**self.harmonise, **{name: value for name, value in asked.items() if value is not None}})

    def match(self, path: Path) -> Match | None:
        """The description of a file, or None without a matching entry. Raises `MedvarError` for an ignored file."""
        path = path.absolute()
        for pattern, why in self.ignore:
            if pattern.parts(path) is not None:
                raise MedvarError(f"the recipe {self.name} leaves it out: {why}")
        return next((match for entry in self.entries if (match := entry.match(path)) is not None), None)

    @property
    def patterns(self) -> list[str]:
        """All patterns of its entries, each once."""
        return list(dict.fromkeys(pattern.text for entry in self.entries for pattern in entry.files))


def match(dataset: DatasetRecipe, paths: Iterable[Path], source: Path) -> dict[Path, Match]:
    """The descriptions of ``paths``, the images found in ``source``, without those that the recipe ignores.

    Raises `MedvarError`, which lists the patterns and the files found, when ``source`` does not look like the data set.
    """
    paths = list(paths)
    if dataset.index:
        if not (source / INDEX).is_file():
            raise MedvarError(f"The recipe {dataset.name} needs {source / INDEX}, which says what the files are.")
        return {}
    matches = {}
    for path in paths:
        try:
            found = dataset.match(path)
        except MedvarError:
            continue  # an ignored file
        if found is not None:
            matches[path] = found
    if not matches:
        shown = [
            path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name for path in paths[:5]
        ]
        found_instead = f"{', '.join(shown)}{', …' if len(paths) > 5 else ''}" if shown else "no images"
        raise MedvarError(
            f"{source} does not look like {dataset.title} ({dataset.name}). Looked for {', '.join(dataset.patterns)}; "
            f"found {found_instead}. Is it another data set, or are its folders renamed? {dataset.url}".rstrip()
        )
    return matches


def fill(text: str, parts: Mapping[str, str | None]) -> str:
    """``text`` with its named parts replaced. Unlike `str.format`, it can access ``parts`` only."""
    return _NAME.sub(lambda name: parts[name[1]] or "", text)


def names_in(text: str) -> frozenset[str]:
    """The names of the parts in a text."""
    return frozenset(_NAME.findall(text))
