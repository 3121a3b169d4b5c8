"""`DatasetRecipe`: what a data set's files are, by where they lie, and how they are to be harmonised."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.recipe.file_patterns import Pattern
from medvar_engine.data.recipe.index_file import INDEX
from medvar_engine.errors import MedvarError

Part = range | Mapping[str, str]
"""What a named part may be: a number of a range, or one of the names of a mapping, each with its label."""

PATIENT_IDS = ("public", "pseudonym")
_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Match:
    """What one file is, as the recipe says."""

    entry: Entry
    patient: str
    contrast: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of scan in a data set. Its files look like one of ``files``; ``parts`` says what named parts may be.

    ``patient`` and ``contrast`` are texts with named parts. A 4-D file whose phases are ``channels`` gives those in
    ``use``; the channel's name is then the contrast.
    """

    modality: str
    region: str
    files: tuple[Pattern, ...]
    patient: str
    contrast: str | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    use: tuple[str, ...] = ()

    def match(self, path: Path) -> Match | None:
        """What the file is, or None when it is not of this kind."""
        for pattern in self.files:
            texts = pattern.parts(path)
            if texts is None:
                continue
            labels = {name: self._label(name, text) for name, text in texts.items()}
            if None not in labels.values():
                return Match(self, fill(self.patient, texts), fill(self.contrast, labels) if self.contrast else None)
        return None

    def _label(self, name: str, text: str) -> str | None:
        """The label of a named part's text; None when it may not be that."""
        allowed = self.parts.get(name)
        if allowed is None:
            return text
        if isinstance(allowed, range):
            return text if text.isascii() and text.isdecimal() and int(text) in allowed else None
        return next((label for key, label in allowed.items() if key.casefold() == text.casefold()), None)


@dataclass(frozen=True, slots=True)
class DatasetRecipe:
    """One data set: whose it is, which files it has, what they show, and what is special about it.

    ``ignore`` are files that must not be read, and why. ``harmonise`` are settings of `Recipe`. ``patient_ids`` are
    ``public`` where the set's own numbers may be kept, or else ``pseudonym``. With ``index`` an index.csv says what the
    files are, and there are no entries. ``sources`` are the addresses that say what the recipe says, by what it is
    about (licence, layout, …), and ``verified`` is the day on which they were read, as in 2026-01-31.
    """

    name: str
    title: str
    url: str
    licence: str
    citation: str
    patient_ids: str
    entries: tuple[Entry, ...] = ()
    dataset: str | None = None
    ignore: tuple[tuple[Pattern, str], ...] = ()
    harmonise: Mapping[str, Any] = field(default_factory=dict)
    index: bool = False
    quirks: tuple[str, ...] = ()
    notes: str = ""
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    verified: str = ""

    def recipe(self, **asked: Any) -> Recipe:
        """How its scans become slices: what was ``asked`` for, else what the data set says, else the default."""
        return Recipe.of(**{**self.harmonise, **{name: value for name, value in asked.items() if value is not None}})

    def match(self, path: Path) -> Match | None:
        """What a file is, or None when no entry looks like it. Raises `MedvarError` for one that must not be read."""
        path = path.absolute()
        for pattern, why in self.ignore:
            if pattern.parts(path) is not None:
                raise MedvarError(f"the recipe {self.name} leaves it out: {why}")
        return next((match for entry in self.entries if (match := entry.match(path)) is not None), None)

    @property
    def patterns(self) -> list[str]:
        """What it looks for, each pattern once."""
        return list(dict.fromkeys(pattern.text for entry in self.entries for pattern in entry.files))


def match(dataset: DatasetRecipe, paths: Iterable[Path], source: Path) -> dict[Path, Match]:
    """What is which among ``paths``, the images found in ``source``; those that the recipe leaves out are not in it.

    Raises `MedvarError`, saying what was looked for and what was found instead, when ``source`` does not look like the
    data set at all.
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
            continue  # one that must not be read
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
    """``text`` with the named parts in it replaced. Unlike `str.format` it reaches nothing but ``parts``."""
    return _NAME.sub(lambda name: parts[name[1]] or "", text)


def names_in(text: str) -> frozenset[str]:
    """The named parts in a text."""
    return frozenset(_NAME.findall(text))
