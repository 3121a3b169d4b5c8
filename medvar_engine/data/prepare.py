"""`prepare`: turns a folder of scans into a folder of shards. After an interruption, the same call continues."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from medvar_engine.conditions import listed
from medvar_engine.data.duplicates.same_image import join_by_images
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.identity.same_patient import SamePatient, by_marks, remarks_on_same
from medvar_engine.data.identity.series_identity import Identity, relative
from medvar_engine.data.placeholder_id import is_placeholder
from medvar_engine.data.read.scans import Refusal
from medvar_engine.data.recipe.slice_index_file import is_slice_index
from medvar_engine.data.shards import Manifest, ShardWriter
from medvar_engine.data.shards.patients import PUBLIC
from medvar_engine.data.slice_survey import survey_slices
from medvar_engine.data.split import SplitRule, Stratum, split_patients
from medvar_engine.data.survey import Known, ScanRules, anonymous, plain, survey_scans
from medvar_engine.data.work_units import SeriesUnit, SlicesUnit, UnitResult, process_unit, read_result, work_folder
from medvar_engine.errors import MedvarError
from medvar_engine.parallel import UnitLost, run
from medvar_engine.value_range import CodeArray

Progress = Callable[[str, int, int, int], None]
"""Called with the finished series, the numbers of finished and of all series, and the number of slices so far."""


def prepare(
    source: Path,
    out: Path,
    recipe: Recipe | None = None,
    rules: ScanRules | None = None,
    *,
    split: SplitRule | None = None,
    overwrite: bool = False,
    on_refusal: Callable[[Refusal], None] | None = None,
    workers: int = 1,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Read the scans in ``source`` (a folder or a file) and write shards of slices to ``out`` according to ``recipe``.

    If the ``index.csv`` of a folder lists single slices (see `medvar_engine.data.recipe.slice_index_file`), exactly
    these slices are used. A split in the index is kept; ``split`` applies to patients without one.

    The identity of a scan is taken from ``index.csv`` in ``source``, or else from ``rules``, or else from the DICOM
    header; see `identify`. With pseudonyms, no name of a patient, series or file is written, except for datasets whose
    recipe declares their ids public. ``split`` decides which patients are tested; its ``holdout`` may contain original
    ids or pseudonyms.

    ``workers`` and ``cluster`` are those of `medvar_engine.parallel.run`; the machines of a cluster must have
    ``source`` and ``out`` under the same paths. The result is the same to the byte, whatever the number of workers and
    interruptions: slices of finished series are stored in a hidden folder beside ``out`` until all are done, so that
    the same call continues after an interrupt, a kill or a full disk. ``out`` may lie in ``source``; it is not read.

    Files and series that cannot be used are refused, with the reason in `Manifest.refused`, and the others are used.
    ``on_refusal`` is called with each refusal under its real name, which the manifest does not contain with pseudonyms.
    Raises `MedvarError` when there are no slices; then ``out`` is unchanged.
    """
    source, out = Path(source).absolute(), Path(out)
    recipe, rules, split = recipe or Recipe(), rules or ScanRules(), split or SplitRule()
    if source.resolve().is_relative_to(out.resolve()):
        raise MedvarError(
            f"The scans in {source} lie inside {out.resolve()}, the folder to be written. Choose another folder."
        )
    with ShardWriter(out, recipe.size, overwrite=overwrite):
        pass  # a folder without write permission is reported now, not after hours
    if rules.dataset_recipe is not None and rules.dataset_recipe.patient_ids == "public":
        rules = replace(rules, pseudonyms=None)
    elif rules.dataset_recipe is not None and rules.pseudonyms is None:
        name = rules.dataset_recipe.name
        raise MedvarError(f"The recipe {name} requires pseudonyms of its patients, so a key is needed.")
    of_slices = is_slice_index(source)
    if rules.masks is not None and of_slices:
        raise MedvarError(
            f"The index of {source} lists single slices, for which masks are not supported. Leave masks out."
        )
    pseudonyms = rules.pseudonyms
    found = survey_slices(source, rules) if of_slices else survey_scans(source, rules)
    refusals = found.refusals
    split = replace(split, holdout=_holdout(split.holdout, found.patients, pseudonyms, source))
    _check_holdout(split.holdout, found.split)
    with work_folder(out) as folder:
        for partial in folder.parent.glob(f".{out.name}-partial-*"):  # left by a process that was killed
            shutil.rmtree(partial, ignore_errors=True)
        units: Sequence[SeriesUnit | SlicesUnit] = found.units(
            recipe, source, folder, synthetic=rules.include_synthetic
        )
        results = _process_units(units, workers, cluster, progress)
        refusals += [one for unit, result in zip(units, results, strict=True) for one in unit.refusals(result)]
        named = [plain(one, source) for one in refusals]
        if on_refusal is not None:
            for refusal in named:
                on_refusal(refusal)
        shown = named if pseudonyms is None else anonymous(refusals, source, pseudonyms, found.series)
        kept = [result for result in results if result.slices]
        if kept:
            with ShardWriter(out, recipe.size, structures=found.structures, overwrite=overwrite) as writer:
                gathered = _gather(writer, folder, kept, split.strata)
                strata = gathered.strata
                marks = _marks(found.identities, strata)
                one_patient = _same(marks, gathered, folder, kept).groups()
                sides, on_split = split_patients(
                    strata,
                    test_fraction=split.test_fraction,
                    seed=split.seed,
                    holdout=[one for one in split.holdout if one in strata],
                    known=found.split,
                    same=one_patient,
                )
                manifest = writer.finish(
                    sides,
                    recipe=recipe.to_dict() | split.to_dict(),
                    refused=[{"path": one.path, "reason": one.reason} for one in shown],
                    given_split=sorted(one for one, side in found.split.items() if sides.get(one) == side),
                    patient_ids=[PUBLIC if pseudonyms is None else pseudonyms.key_id],
                    marks={} if pseudonyms is None else marks,
                    one_patient=[list(group) for group in one_patient],
                    remarks=on_split
                    + remarks_on_same(one_patient)
                    + _remarks_on_given(found.split, sides)
                    + found.remarks(recipe)
                    + _remarks(found.series, split.holdout, strata, pseudonyms)
                    + gathered.remarks,
                )
        shutil.rmtree(folder, ignore_errors=True)
    if not kept:
        reasons = "\n".join(f"  {one}" for one in named[:20])
        raise MedvarError(f"No slices could be made from {source}. Everything found was refused:\n{reasons}")
    return manifest


def _holdout(asked: Sequence[str], patients: set[str], pseudonyms: Pseudonyms | None, source: Path) -> tuple[str, ...]:
    """The names of held-out patients as they are written. Raises `MedvarError` that lists unknown patients."""
    written = {name: name if pseudonyms is None or name in patients else pseudonyms.patient(name) for name in asked}
    if unknown := sorted(name for name, one in written.items() if one not in patients):
        names = ", ".join(sorted(patients)[:20]) + (", …" if len(patients) > 20 else "")
        raise MedvarError(f"Held-out patients {unknown} are not in {source}; its patients are {names}.")
    return tuple(written.values())


def _check_holdout(holdout: Sequence[str], given: Mapping[str, str]) -> None:
    """Raises `MedvarError` when a patient to hold out is in the training split of index.csv."""
    if trained := [one for one in holdout if given.get(one) == "train"]:
        raise MedvarError(f"Held-out patients {trained} belong to the training split of index.csv. Hold out others.")


def _process_units(
    units: Sequence[SeriesUnit | SlicesUnit], workers: int, cluster: str | None, progress: Progress | None
) -> list[UnitResult]:
    """Process all work units; returns their results in the order of ``units``."""
    results: dict[int, UnitResult] = {}
    slices = 0
    with closing(run(process_unit, units, workers=workers, cluster=cluster)) as outcomes:
        for index, outcome in outcomes:
            if isinstance(outcome, UnitLost):
                results[index] = UnitResult("", 0, str(outcome))
            elif isinstance(outcome, MedvarError):
                raise outcome
            else:
                results[index] = outcome
            slices += results[index].slices
            if progress is not None:
                progress(relative(units[index].path, units[index].source), len(results), len(units), slices)
    return [results[index] for index in range(len(units))]


@dataclass(slots=True)
class _Gathered:
    """Strata of each patient, remarks, fingerprint and patient of each slice, and the first slice of each result."""

    strata: dict[str, set[Stratum]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    fingerprints: list[bytes] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    first_rows: list[int] = field(default_factory=list)


def _gather(writer: ShardWriter, folder: Path, results: Iterable[UnitResult], columns: Sequence[str]) -> _Gathered:
    """Copy the slices of all results to the shards."""
    gathered = _Gathered()
    for result in results:
        found = read_result(folder, result)
        writer.add(found.codes, found.facts, found.masks)
        gathered.first_rows.append(len(gathered.patients))
        for facts in found.facts:
            stratum = tuple(getattr(facts, name) or "" for name in columns)
            gathered.strata.setdefault(facts.patient, set()).add(stratum)
            gathered.fingerprints.append(facts.fingerprint)
            gathered.patients.append(facts.patient)
        gathered.remarks += [f"{found.facts[0].series}: {one}" for one in found.remarks]
    return gathered


def _marks(identities: Iterable[Identity], patients: Iterable[str]) -> dict[str, list[str]]:
    """The marks by which two names are recognised as one patient."""
    found: dict[str, set[str]] = {patient: set() for patient in patients}
    for identity in identities:
        if identity.patient in found:
            found[identity.patient] |= set(identity.marks)
    return {patient: sorted(marks) for patient, marks in sorted(found.items())}


def _same(
    marks: Mapping[str, Iterable[str]], gathered: _Gathered, folder: Path, results: Sequence[UnitResult]
) -> SamePatient:
    """Find names of the same patient, by their marks and by equal images."""
    same = by_marks(marks)
    codes_of = lru_cache(maxsize=128)(lambda which: read_result(folder, results[which]).codes)

    def codes(at: int) -> CodeArray:
        which = bisect_right(gathered.first_rows, at) - 1
        return np.asarray(codes_of(which)[at - gathered.first_rows[which]])

    strings = np.frombuffer(b"".join(gathered.fingerprints), np.uint8).reshape(len(gathered.fingerprints), -1)
    join_by_images(same, strings, gathered.patients, codes)
    return same


def _remarks_on_given(given: Mapping[str, str], sides: Mapping[str, str]) -> list[str]:
    """Remarks about patients who are not on the side that index.csv gives."""
    moved = sorted(one for one, side in given.items() if sides.get(one, side) != side)
    reason = "held out although index.csv assigns them to training, because they are the same patient as a held-out one"
    return [f"{reason}: {listed(moved)}"] if moved else []


def _remarks(
    known: Iterable[Known], holdout: Sequence[str], patients: Iterable[str], pseudonyms: Pseudonyms | None
) -> list[str]:
    shared = {
        series.patient
        for series, identity in known
        if series.patient is not None and is_placeholder(series.patient)
        if identity.patient in (series.patient, pseudonyms and pseudonyms.patient(series.patient))
    }
    remarks = [
        f"PatientID is {one!r} in some headers, which may stand for several patients; they are treated as one patient. "
        "Name the patients in index.csv"
        for one in sorted(shared)
    ]
    remarks += [f"held-out patient {one} gave no slices" for one in holdout if one not in set(patients)]
    if pseudonyms is not None:
        remarks.append(f"patients and series have pseudonyms, made with the key {pseudonyms.key_id}")
    return remarks
