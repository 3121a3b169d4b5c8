"""`Identity`: patient and content of a series, from index, recipe, arguments or headers, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.identity.same_patient import marks_of
from medvar_engine.data.read.scans import Series
from medvar_engine.data.read.volume_files import stem
from medvar_engine.data.recipe.dataset_recipe import DatasetRecipe
from medvar_engine.data.recipe.index_file import Index, IndexRow, find_row, normal_label, normal_modality
from medvar_engine.errors import MedvarError


@dataclass(frozen=True, slots=True)
class Identity:
    """Patient and content of one series. With pseudonyms, neither ``patient`` nor ``series`` is the real name.

    Names with a common one of the ``marks`` belong to one patient; with pseudonyms, marks are keyed hashes. ``series``
    is the DICOM UID or else the file name. ``channels`` are the contrasts of the volumes of a 4-D file that is not a
    time series, with None for unused ones; empty for other files.
    """

    patient: str
    modality: str
    region: str
    dataset: str | None
    contrast: str | None
    source: str
    licence: str
    series: str
    patient_guessed: bool = False
    channels: tuple[str | None, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRules:
    """Information about all scans of a folder in addition to their files and ``index.csv``, and the naming of patients.

    ``modality`` and ``region`` apply to scans without their own; ``region`` also replaces that of ``dataset_recipe``,
    and ``dataset`` replaces any other. ``licence`` applies to scans without another licence. With ``pseudonyms``,
    patients and series get pseudonyms, except in datasets whose recipe declares the patient ids public.
    """

    dataset_recipe: DatasetRecipe | None = None
    modality: str | None = None
    region: str | None = None
    dataset: str | None = None
    licence: str | None = None
    pseudonyms: Pseudonyms | None = None


NO_RULES = IdentityRules()


def identify(one: Series, index: Index, source: Path, rules: IdentityRules = NO_RULES) -> Identity:
    """The identity of the series ``one``, found in ``source``.

    A row of ``index`` has priority over the dataset's recipe in ``rules``, and the recipe over the headers.

    Raises `MedvarError` when something is unknown or contradictory.
    """
    row = _row_of(one, index, source)
    dataset_recipe = rules.dataset_recipe
    if row is not None:
        found = _by_index(row, one, source)
    elif dataset_recipe is not None:
        found = _by_recipe(dataset_recipe, one, source)
        found = replace(found, region=normal_label(rules.region) if rules.region else found.region)
    else:
        found = _by_header(one, source, rules.modality, rules.region)
    if one.modality is not None and found.modality != one.modality:
        who = (
            "index.csv"
            if row is not None
            else f"the recipe {dataset_recipe.name}"
            if dataset_recipe
            else "the argument"
        )
        raise MedvarError(f"{who} says {found.modality}, but the DICOM header says {one.modality}")
    uids = [one.uid] if one.is_dicom else []
    return name_identity(found, source, rules, uids)


def name_identity(found: Identity, source: Path, rules: IdentityRules, uids: Sequence[str] = ()) -> Identity:
    """Complete ``found`` with data set, source and licence, and apply pseudonyms; see `identify`.

    ``uids`` are the SeriesInstanceUIDs, by which names of the same patient are recognised.

    Raises `MedvarError` when the recipe requires pseudonyms and there are none.
    """
    dataset_recipe, pseudonyms = rules.dataset_recipe, rules.pseudonyms
    if dataset_recipe is not None:
        found = replace(found, dataset=found.dataset or dataset_recipe.dataset)
    named = replace(
        found,
        dataset=normal_label(rules.dataset) if rules.dataset else found.dataset,
        source=found.source or (dataset_recipe.title if dataset_recipe else rules.dataset) or "",
        licence=found.licence or rules.licence or "",
    )
    if dataset_recipe is not None and dataset_recipe.patient_ids == "pseudonym" and pseudonyms is None:
        raise MedvarError(f"the recipe {dataset_recipe.name} asks for pseudonyms of its patients, so a key is needed")
    if pseudonyms is None or (dataset_recipe is not None and dataset_recipe.patient_ids == "public"):
        return replace(named, source=named.source or source.name, marks=marks_of(named.patient, uids))
    return replace(
        named,
        marks=marks_of(named.patient, uids, pseudonyms),
        patient=pseudonyms.patient(named.patient),
        series=pseudonyms.series(named.series),
        source=named.source or "not stated",  # the folder's name may contain a person's name
    )


def relative(path: Path, source: Path) -> str:
    """The name of ``path`` in tables, relative to the folder ``source``."""
    return path.relative_to(source).as_posix() if source.is_dir() and path.is_relative_to(source) else path.name


def _row_of(one: Series, index: Index, source: Path) -> IndexRow | None:
    rows = {find_row(index, source, path) for path in one.paths} if index else {None}
    if len(rows) > 1:
        raise MedvarError("index.csv has different rows for the files of this one series")
    return rows.pop()


def _by_index(row: IndexRow, one: Series, source: Path) -> Identity:
    return Identity(
        patient=row.patient,
        modality=row.modality,
        region=row.region,
        dataset=row.dataset,
        contrast=row.contrast or None,
        source=row.source,
        licence=row.licence,
        series=_series_name(one, source),
    )


def _by_recipe(recipe: DatasetRecipe, one: Series, source: Path) -> Identity:
    matches = [recipe.match(path) for path in one.paths]
    match = matches[0]
    if match is None:
        where = "index.csv does not list it" if recipe.index else f"it matches none of {', '.join(recipe.patterns)}"
        raise MedvarError(f"the recipe {recipe.name} does not describe it: {where}")
    if any(other != match for other in matches):
        raise MedvarError(f"the recipe {recipe.name} describes the files of this one series differently")
    entry = match.entry
    return Identity(
        patient=match.patient,
        modality=entry.modality,
        region=entry.region,
        dataset=recipe.dataset,
        contrast=match.contrast,
        source=recipe.title,
        licence=recipe.licence,
        series=_series_name(one, source),
        channels=tuple(channel if channel in entry.use else None for channel in entry.channels),
    )


def _by_header(one: Series, source: Path, modality: str | None, region: str | None) -> Identity:
    known_modality = normal_modality(modality) if modality else one.modality
    known_region = normal_label(region) if region else one.region
    missing = [name for name, value in (("modality", known_modality), ("region", known_region)) if not value]
    if known_modality is None or known_region is None or missing:
        raise MedvarError(
            f"its {' and '.join(missing)} is not known: {'the DICOM header' if one.is_dicom else 'the file format'} "
            "does not state it; give it as an argument, or in an index.csv (path, patient, modality, region, …)"
        )
    return Identity(
        patient=one.patient or _patient_of(one.path),
        modality=known_modality,
        region=known_region,
        dataset=None,
        contrast=None,
        source="",
        licence="",
        series=_series_name(one, source),
        patient_guessed=one.patient_guessed,
    )


def _series_name(one: Series, source: Path) -> str:
    return one.uid if one.is_dicom else relative(one.path, source)


def _patient_of(path: Path) -> str:
    """The BIDS subject in the path, or else the file name without suffix."""
    return next((part for part in path.parts[:-1] if part.startswith("sub-")), stem(path).split("_ses-")[0])
