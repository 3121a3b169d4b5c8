"""`prepare`: a folder of scans to a folder of shards. Stopped at any point, the same call goes on from there."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from medvar_engine.conditions import listed
from medvar_engine.data.duplicates.same_image import join_by_pictures
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.identity.same_patient import SamePatient, by_marks, remarks_on_same
from medvar_engine.data.identity.series_identity import Identity, relative
from medvar_engine.data.nobody import names_nobody
from medvar_engine.data.read.scans import Refusal
from medvar_engine.data.recipe.slice_index_file import is_slice_index
from medvar_engine.data.shards import Manifest, ShardWriter
from medvar_engine.data.shards.patients import PUBLIC
from medvar_engine.data.slice_survey import survey_slices
from medvar_engine.data.split import Cell, SplitRule, split_patients
from medvar_engine.data.survey import Known, ScanRules, anonymous, plain, survey_scans
from medvar_engine.data.work_units import Part, SlicesWork, Work, make_part, parts_folder, read_part
from medvar_engine.errors import MedvarError
from medvar_engine.parallel import UnitLost, run
from medvar_engine.value_range import CodeArray

Progress = Callable[[str, int, int, int], None]
"""Called with the series just finished, how many are finished, how many there are, and how many slices they gave."""


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
    """Read the scans in ``source`` (a folder or a file) and write shards of slices to ``out``, as ``recipe`` says.

    A folder whose ``index.csv`` is one of single slices (see `medvar_engine.data.recipe.slice_index_file`) gives those
    that it names and no others. The split that it gives is kept; ``split`` is for patients of whom it says nothing.

    What a scan is comes from ``index.csv`` in ``source``, else from ``rules``, else from the DICOM header; see
    `identify`. With pseudonyms no name of a patient, a series or a file is written, except in datasets whose recipe
    says that their ids are public. ``split`` says who is tested; its ``holdout`` may have original ids or pseudonyms.

    ``workers`` and ``cluster`` are those of `medvar_engine.parallel.run`; the machines of a cluster must see ``source``
    and ``out`` under the same names. The result is the same, to the byte, however many work at it and however often it
    was stopped: the slices of finished series are kept in a hidden folder beside ``out`` until all are done, so that
    the same call goes on after an interrupt, a kill or a full disk. ``out`` may lie in ``source``; it is not read.

    What cannot be used is refused, with the reason in `Manifest.refused`, and the rest goes on; ``on_refusal`` is
    called with each refusal by its real name, which the manifest does not have with pseudonyms. Raises
    `MedvarError` when nothing is left, and then ``out`` is as it was.
    """
    source, out = Path(source).absolute(), Path(out)
    recipe, rules, split = recipe or Recipe(), rules or ScanRules(), split or SplitRule()
    if source.resolve().is_relative_to(out.resolve()):
        raise MedvarError(
            f"The scans in {source} lie inside {out.resolve()}, which is to be written; choose another folder."
        )
    with ShardWriter(out, recipe.size, overwrite=overwrite):
        pass  # a folder that may not be written says so now, not after hours
    if rules.dataset_recipe is not None and rules.dataset_recipe.patient_ids == "public":
        rules = replace(rules, pseudonyms=None)
    elif rules.dataset_recipe is not None and rules.pseudonyms is None:
        name = rules.dataset_recipe.name
        raise MedvarError(f"The recipe {name} asks for pseudonyms of its patients, so a key is needed.")
    if rules.masks is not None and is_slice_index(source):
        raise MedvarError(f"The index of {source} names single slices, whose masks are not read; leave masks out.")
    pseudonyms = rules.pseudonyms
    found = survey_slices(source, rules) if is_slice_index(source) else survey_scans(source, rules)
    refusals = found.refusals
    split = replace(split, holdout=_holdout(split.holdout, found.patients, pseudonyms, source))
    _check_holdout(split.holdout, found.split)
    with parts_folder(out) as folder:
        for partial in folder.parent.glob(f".{out.name}-partial-*"):  # of a process that was killed
            shutil.rmtree(partial, ignore_errors=True)
        works: Sequence[Work | SlicesWork] = found.works(recipe, source, folder, synthetic=rules.include_synthetic)
        parts = _make_parts(works, workers, cluster, progress)
        refusals += [one for work, part in zip(works, parts, strict=True) for one in work.refusals(part)]
        named = [plain(one, source) for one in refusals]
        if on_refusal is not None:
            for refusal in named:
                on_refusal(refusal)
        shown = named if pseudonyms is None else anonymous(refusals, source, pseudonyms, found.series)
        kept = [part for part in parts if part.slices]
        if kept:
            with ShardWriter(out, recipe.size, structures=found.structures, overwrite=overwrite) as writer:
                cells, remarks = _gather(writer, folder, kept, split.strata)
                marks = _marks(found.identities, cells)
                one_patient = _same(marks, folder, kept).groups()
                sides, on_split = split_patients(
                    cells,
                    test_fraction=split.test_fraction,
                    seed=split.seed,
                    holdout=[one for one in split.holdout if one in cells],
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
                    + _remarks(found.series, split.holdout, cells, pseudonyms)
                    + remarks,
                )
        shutil.rmtree(folder, ignore_errors=True)
    if not kept:
        reasons = "\n".join(f"  {one}" for one in named[:20])
        raise MedvarError(f"No slices could be made from {source}; what was found was refused:\n{reasons}")
    return manifest


def _holdout(asked: Sequence[str], patients: set[str], pseudonyms: Pseudonyms | None, source: Path) -> tuple[str, ...]:
    """Held-out patients as they are written. Raises `MedvarError` naming those that are not there."""
    written = {name: name if pseudonyms is None or name in patients else pseudonyms.patient(name) for name in asked}
    if unknown := sorted(name for name, one in written.items() if one not in patients):
        names = ", ".join(sorted(patients)[:20]) + (", …" if len(patients) > 20 else "")
        raise MedvarError(f"Held-out patients {unknown} are not in {source}; its patients are {names}.")
    return tuple(written.values())


def _check_holdout(holdout: Sequence[str], given: Mapping[str, str]) -> None:
    """Raises `MedvarError` when who is to be held out is trained on, as index.csv says."""
    if trained := [one for one in holdout if given.get(one) == "train"]:
        raise MedvarError(f"Held-out patients {trained} are in train by the split in index.csv. Hold out others.")


def _make_parts(
    works: Sequence[Work | SlicesWork], workers: int, cluster: str | None, progress: Progress | None
) -> list[Part]:
    """The part of every work, in the order of ``works``."""
    parts: dict[int, Part] = {}
    slices = 0
    with closing(run(make_part, works, workers=workers, cluster=cluster)) as outcomes:
        for index, outcome in outcomes:
            if isinstance(outcome, UnitLost):
                parts[index] = Part("", 0, str(outcome))
            elif isinstance(outcome, MedvarError):
                raise outcome
            else:
                parts[index] = outcome
            slices += parts[index].slices
            if progress is not None:
                progress(relative(works[index].path, works[index].source), len(parts), len(works), slices)
    return [parts[index] for index in range(len(works))]


def _gather(
    writer: ShardWriter, folder: Path, parts: Iterable[Part], strata: Sequence[str]
) -> tuple[dict[str, set[Cell]], list[str]]:
    """Copy the slices of all parts to the shards; gives the cells of each patient, and what was remarked on the way."""
    cells: dict[str, set[Cell]] = {}
    remarks: list[str] = []
    for part in parts:
        found = read_part(folder, part)
        writer.add(found.codes, found.facts, found.masks)
        for facts in found.facts:
            cells.setdefault(facts.patient, set()).add(tuple(getattr(facts, name) or "" for name in strata))
        remarks += [f"{found.facts[0].series}: {one}" for one in found.remarks]
    return cells, remarks


def _marks(identities: Iterable[Identity], patients: Iterable[str]) -> dict[str, list[str]]:
    """What says of the patients' names that they are one."""
    found: dict[str, set[str]] = {patient: set() for patient in patients}
    for identity in identities:
        if identity.patient in found:
            found[identity.patient] |= set(identity.marks)
    return {patient: sorted(marks) for patient, marks in sorted(found.items())}


def _same(marks: Mapping[str, Iterable[str]], folder: Path, parts: Sequence[Part]) -> SamePatient:
    """Which names are one patient, by their marks and the pictures in the parts."""
    same = by_marks(marks)
    prints: list[bytes] = []
    patients: list[str] = []
    first_rows: list[int] = []
    for part in parts:
        first_rows.append(len(patients))
        for facts in read_part(folder, part).facts:
            prints.append(facts.fingerprint)
            patients.append(facts.patient)
    codes_of = lru_cache(maxsize=128)(lambda which: read_part(folder, parts[which]).codes)

    def codes(at: int) -> CodeArray:
        which = bisect_right(first_rows, at) - 1
        return np.asarray(codes_of(which)[at - first_rows[which]])

    join_by_pictures(same, np.frombuffer(b"".join(prints), np.uint8).reshape(len(prints), -1), patients, codes)
    return same


def _remarks_on_given(given: Mapping[str, str], sides: Mapping[str, str]) -> list[str]:
    """What to say of patients who are not where index.csv has them."""
    moved = sorted(one for one, side in given.items() if sides.get(one, side) != side)
    told = "held out, though index.csv has them in train, since they are one patient with one who is held out"
    return [f"{told}: {listed(moved)}"] if moved else []


def _remarks(
    known: Iterable[Known], holdout: Sequence[str], patients: Iterable[str], pseudonyms: Pseudonyms | None
) -> list[str]:
    shared = {
        series.patient
        for series, identity in known
        if series.patient is not None and names_nobody(series.patient)
        if identity.patient in (series.patient, pseudonyms and pseudonyms.patient(series.patient))
    }
    remarks = [
        f"PatientID is {one!r} in some headers, which may stand for several people; they are taken as one person, so "
        "name the patients in index.csv"
        for one in sorted(shared)
    ]
    remarks += [f"held-out patient {one} gave no slices" for one in holdout if one not in set(patients)]
    if pseudonyms is not None:
        remarks.append(f"patients and series have pseudonyms, made with the key {pseudonyms.key_id}")
    return remarks
