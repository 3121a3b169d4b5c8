"""`survey`: finds the series of a folder and their identities, before any pixel is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.identity.series_identity import Identity, IdentityRules, identify, relative
from medvar_engine.data.masks.find_masks import FoundMasks, find_masks
from medvar_engine.data.masks.mask_rule import MaskRule
from medvar_engine.data.read.assumed_geometry import NOTHING, Assumed
from medvar_engine.data.read.scans import LOOKED_FOR, Refusal, Series, find_series
from medvar_engine.data.recipe.dataset_recipe import match
from medvar_engine.data.recipe.index_file import names_of, read_index
from medvar_engine.data.work_units import SeriesUnit
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import Structures

Known = tuple[Series, Identity]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRules(IdentityRules):
    """How the scans of a folder are read and identified.

    ``include_synthetic`` accepts what a generative model made. ``assumed`` is the geometry of files without one.
    With ``masks`` every slice has a mask, and scans without a label map are refused.
    """

    include_synthetic: bool = False
    assumed: Assumed = NOTHING
    masks: MaskRule | None = None


# Quoted parts of a message come from files and may contain names.
_QUOTED = re.compile(r"(?<!\w)(?:'[^']*'|\"[^\"]*\")")


@dataclass(frozen=True, slots=True)
class FoundScans:
    """The series with a known identity, and the refused files and series."""

    series: list[Known]
    refusals: list[Refusal]
    masks: FoundMasks | None = None

    @property
    def structures(self) -> Structures:
        """The structures of the masks; empty without masks."""
        return self.masks.structures if self.masks else ()

    @property
    def identities(self) -> list[Identity]:
        """The patient and the content of each series."""
        return [identity for _, identity in self.series]

    @property
    def patients(self) -> set[str]:
        """The names of patients as they are written."""
        return {identity.patient for identity in self.identities}

    @property
    def split(self) -> Mapping[str, str]:
        """Empty, because scans have no given split."""
        return {}

    def units(self, recipe: Recipe, source: Path, folder: Path, *, synthetic: bool) -> list[SeriesUnit]:
        """One work unit for each series."""
        labels = self.masks.of_scan if self.masks else {}
        return [
            SeriesUnit(series, identity, recipe, source, folder, labels.get(series.uid))
            for series, identity in self.series
        ]

    def remarks(self, recipe: Recipe) -> list[str]:
        """Remarks for users of the slices."""
        guessed = sorted({identity.patient for _, identity in self.series if identity.patient_guessed})
        names = f"{', '.join(guessed[:5])}{', …' if len(guessed) > 5 else ''}"
        remark = (
            f"patients {names} are guessed from file names or studies; if one patient has several of them, name the "
            "patients in index.csv, or else training and test may share patients"
        )
        return [remark] if guessed else []


def survey_scans(source: Path, rules: ScanRules) -> FoundScans:
    """The result of `survey`; with masks, only scans with a label map, and their label maps."""
    known, refusals = survey(source, rules)
    if rules.masks is None:
        return FoundScans(known, refusals)
    found = find_masks(rules.masks, [one for one, _ in known], source)
    without = {one.path for one in found.refusals}
    kept = [(one, identity) for one, identity in known if one.uid in found.of_scan]
    others = [one for one in refusals if Path(one.path) not in found.files and one.path not in without]
    return FoundScans(kept, [*others, *found.refusals], found)


def survey(source: Path, rules: ScanRules) -> tuple[list[Known], list[Refusal]]:
    """The series with a known identity, in a stable order, and the refused files and series.

    Masks tell cases apart where headers do not name patients. Raises `MedvarError` when there are no images at all, or
    when ``source`` does not look like the dataset of the recipe.
    """
    index = read_index(source) if source.is_dir() else {}
    series, refusals = find_series(source, synthetic=rules.include_synthetic, assumed=rules.assumed)
    if not series and not refusals:
        raise MedvarError(
            f"No images found below {source}; looked for {LOOKED_FOR}. 2-D images need an index.csv that lists them."
        )
    if rules.dataset_recipe is not None:
        match(rules.dataset_recipe, [path for one in series for path in one.paths], source)
    if rules.masks is not None:
        cases = [None if one.patient else rules.masks.case(one.path) for one in series]
        series = [replace(one, patient=case) if case else one for one, case in zip(series, cases, strict=True)]
    known: list[Known] = []
    for one in series:
        try:
            known.append((one, identify(one, index, source, rules)))
        except MedvarError as error:
            refusals.append(Refusal(str(one.path), str(error)))
    found = {one.path for one in series}
    named = {name for path in found for name in names_of(source, path)} if index else set()
    for path, row in index.items():
        if path not in named:
            refusals.append(Refusal(str(source / row.path), "index.csv lists it, but no image was found there"))
    return known, refusals


def plain(refusal: Refusal, source: Path) -> Refusal:
    """A refusal with paths relative to ``source``."""
    return Refusal(relative(Path(refusal.path), source), refusal.reason.replace(f"{source}/", ""))


def anonymous(
    refusals: Sequence[Refusal], source: Path, pseudonyms: Pseudonyms, known: Sequence[Known]
) -> list[Refusal]:
    """Refusals with a pseudonym instead of every file and folder name, which may contain the name of a person.

    ``source`` and the paths of refusals must be absolute, because ``.`` cannot be distinguished from a full stop.
    """
    by_path = {series.path: (series, identity.series) for series, identity in known}
    return [_anonymous(one, source, pseudonyms, *by_path.get(Path(one.path), (None, None))) for one in refusals]


def _anonymous(
    refusal: Refusal, source: Path, pseudonyms: Pseudonyms, series: Series | None, name: str | None
) -> Refusal:
    path = Path(refusal.path)
    name = name or pseudonyms.series(relative(path, source))
    files = (path,) if series is None else (*series.paths, *series.data_files)
    folders = {folder for file in files for folder in file.parents if folder != source and source in folder.parents}
    short = {text for file in files for text in (relative(file, source), file.name)}
    # A number alone is more likely a count than a file name.
    texts = {*map(str, files), *map(str, folders), *(text for text in short if not text.isdigit())}
    reason = _QUOTED.sub("'…'", refusal.reason)
    for text in sorted(texts, key=len, reverse=True):
        reason = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", name, reason)
    # Remaining parts of the source's path, up to the next punctuation mark or space.
    return Refusal(name, re.sub(rf"{re.escape(str(source))}[^\s:;,()]*", "the source", reason))
