"""`Identity`: who and what a series shows, from the index, the arguments or the headers, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medvar_engine.data.index import IndexRow, find_row, normal_modality, slug
from medvar_engine.data.read import Series
from medvar_engine.data.read_files import stem
from medvar_engine.errors import MedvarError


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of one series, from the index, the arguments or the headers, in this order."""

    patient: str
    modality: str
    region: str
    dataset: str | None
    contrast: str | None
    source: str
    licence: str
    patient_guessed: bool = False


def identify(one: Series, index: list[IndexRow], source: Path, **arguments: str | None) -> Identity:
    """Who and what ``one`` is. Raises `MedvarError` saying what is not known, or what contradicts what."""
    rows = {find_row(index, source, path) for path in one.paths} if index else {None}
    if len(rows) > 1:
        raise MedvarError("index.csv has different rows for the files of this one series")
    row = rows.pop()
    if row is not None:
        if one.modality is not None and one.modality != row.modality:
            raise MedvarError(f"index.csv says {row.modality}, but the DICOM header says {one.modality}")
        return Identity(
            row.patient,
            row.modality,
            row.region,
            slug(arguments["dataset"]) if arguments["dataset"] else row.dataset,
            row.contrast or None,
            row.source or source.name,
            row.licence or arguments["licence"] or "",
        )
    modality = normal_modality(arguments["modality"]) if arguments["modality"] else one.modality
    region = slug(arguments["region"]) if arguments["region"] else one.region
    if one.modality is not None and modality != one.modality:
        raise MedvarError(f"the DICOM header says {one.modality}, but {modality} was asked for")
    missing = [name for name, value in (("modality", modality), ("region", region)) if not value]
    if modality is None or region is None or missing:
        raise MedvarError(
            f"its {' and '.join(missing)} is not known: {'the DICOM header' if one.is_dicom else 'the file format'} "
            "does not say it; name it as an argument, or in an index.csv (path, patient, modality, region, …)"
        )
    return Identity(
        one.patient or _patient_of(one.path),
        modality,
        region,
        slug(arguments["dataset"]) if arguments["dataset"] else None,
        None,
        arguments["dataset"] or source.name,
        arguments["licence"] or "",
        one.patient_guessed,
    )


def _patient_of(path: Path) -> str:
    """The BIDS subject in the path, or else the file name without its suffix."""
    return next((part for part in path.parts[:-1] if part.startswith("sub-")), stem(path).split("_ses-")[0])
