"""`survey_slices`: the single slices that an index lists, with their identities, before any pixel is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.identity.series_identity import Identity, IdentityRules, name_identity, relative
from medvar_engine.data.read.folder import files_below
from medvar_engine.data.read.refusal import Refusal
from medvar_engine.data.read.scans import Series
from medvar_engine.data.recipe.slice_index_file import IMAGE_SUFFIXES, SliceFile, read_slice_index
from medvar_engine.data.slice_files import Listed, is_cut_short, is_wanted
from medvar_engine.data.work_units import SlicesUnit
from medvar_engine.masks.structures import Structures

FILES_PER_UNIT = 32
"""Slices per work unit: few, because a unit is lost with its worker; not too few, to avoid many small files."""


@dataclass(frozen=True, slots=True)
class ListedSlices:
    """The slices of an index.

    ``unnamed`` counts image files that it does not list; ``split`` is its split of patients.
    """

    files: tuple[Listed, ...]
    refusals: list[Refusal]
    split: Mapping[str, str]
    unnamed: int

    @property
    def series(self) -> list[tuple[Series, Identity]]:
        """Empty, because there are no series of several slices."""
        return []

    @property
    def structures(self) -> Structures:
        """Empty, because single slices have no masks."""
        return ()

    @property
    def identities(self) -> list[Identity]:
        """The patient and the content of each slice."""
        return [identity for _, identity in self.files]

    @property
    def patients(self) -> set[str]:
        """The names of patients as they are written."""
        return {identity.patient for identity in self.identities}

    def units(self, recipe: Recipe, source: Path, folder: Path, *, synthetic: bool) -> list[SlicesUnit]:
        """The work units for a recipe, without slices of planes that it does not request."""
        files = [one for one in self.files if is_wanted(one[0].plane, recipe)]
        return [
            SlicesUnit(tuple(files[start : start + FILES_PER_UNIT]), recipe, source, folder, synthetic)
            for start in range(0, len(files), FILES_PER_UNIT)
        ]

    def remarks(self, recipe: Recipe) -> list[str]:
        """Remarks for users of the slices."""
        remarks = []
        if self.unnamed:
            remarks.append(f"{self.unnamed} image files are ignored, because index.csv does not list them")
        if others := Counter(file.plane for file, _ in self.files if not is_wanted(file.plane, recipe)):
            counts = ", ".join(f"{count} {plane}" for plane, count in sorted(others.items()))
            remarks.append(f"slices of planes that were not requested are left out: {counts}")
        if short := Counter(file.region for file, _ in self.files if is_cut_short(file.values, file.region, recipe)):
            counts = ", ".join(f"{count} of the {region}" for region, count in sorted(short.items()))
            remarks.append(
                "CT slices with a range of values narrower than the window of their region, so that part of "
                f"the window is missing: {counts}"
            )
        return remarks


def survey_slices(source: Path, rules: IdentityRules) -> ListedSlices:
    """The slices that ``index.csv`` in ``source`` lists, each with its identity, and the refused ones.

    Raises `MedvarError` when the index cannot be read or lacks a column.
    """
    files, refusals = read_slice_index(source)
    listed = []
    for file in files:
        found = _identity(file, source)
        listed.append((file, name_identity(found, source, rules)))
    split = {identity.patient: file.split for file, identity in listed if file.split is not None}
    named = {file.path for file in files} | {Path(one.path) for one in refusals}
    unnamed = sum(path.suffix.lower() in IMAGE_SUFFIXES and path not in named for path in files_below(source)[0])
    return ListedSlices(tuple(listed), refusals, split, unnamed)


def _identity(file: SliceFile, source: Path) -> Identity:
    return Identity(
        patient=file.patient,
        modality=file.modality,
        region=file.region,
        dataset=file.dataset,
        contrast=file.contrast,
        source=file.source,
        licence=file.licence,
        series=relative(file.path, source),
    )
