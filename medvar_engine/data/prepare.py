"""`prepare`: a folder of scans to a folder of shards. Stopped at any point, the same call goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from medvar_engine.data.assumed import NOTHING, Assumed
from medvar_engine.data.dataset_recipe import DatasetRecipe
from medvar_engine.data.identity import relative
from medvar_engine.data.nobody import names_nobody
from medvar_engine.data.parts import Part, Work, make_part, parts_folder, read_part
from medvar_engine.data.privacy import Pseudonyms
from medvar_engine.data.read import Refusal
from medvar_engine.data.recipe import Recipe
from medvar_engine.data.shards import Manifest, ShardWriter
from medvar_engine.data.split import Cell, SplitRule, split_patients
from medvar_engine.data.survey import Known, anonymous, plain, survey
from medvar_engine.errors import MedvarError
from medvar_engine.jobs import UnitLost, run

Progress = Callable[[str, int, int, int], None]
"""Called with the series just finished, how many are finished, how many there are, and how many slices they gave."""


def prepare(
    source: Path,
    out: Path,
    recipe: Recipe | None = None,
    *,
    dataset_recipe: DatasetRecipe | None = None,
    modality: str | None = None,
    region: str | None = None,
    dataset: str | None = None,
    licence: str | None = None,
    pseudonyms: Pseudonyms | None = None,
    split: SplitRule | None = None,
    include_synthetic: bool = False,
    assumed: Assumed = NOTHING,
    overwrite: bool = False,
    on_refusal: Callable[[Refusal], None] | None = None,
    workers: int = 1,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Read the scans in ``source`` (a folder or a file) and write shards of slices to ``out``, as ``recipe`` says.

    What a scan is comes from ``index.csv`` in ``source``, else from ``dataset_recipe``, else from ``modality``,
    ``region`` and ``dataset``, else from the DICOM header; see `identify`. With ``pseudonyms`` no name of a patient, a
    series or a file is written, but for data sets whose recipe says that their ids are public. ``split`` says who is
    tested; its ``holdout`` may have original ids or pseudonyms. ``assumed`` says how files lie that do not state it.

    ``workers`` and ``cluster`` are those of `medvar_engine.jobs.run`; the machines of a cluster must see ``source`` and
    ``out`` under the same names. The result is the same, to the byte, however many work at it and however often it was
    stopped: the slices of finished series are kept in a hidden folder beside ``out`` until all are done, so that the
    same call goes on after an interrupt, a kill or a full disk. ``out`` may lie in ``source``; it is not read.

    What cannot be used is refused, with the reason in `Manifest.refused`, and the rest goes on; ``on_refusal`` is
    called with each refusal by its real name, which the manifest does not have with ``pseudonyms``. Raises
    `MedvarError` when nothing is left, and then ``out`` is as it was.
    """
    source, out, recipe, split = Path(source).absolute(), Path(out), recipe or Recipe(), split or SplitRule()
    if source.resolve().is_relative_to(out.resolve()):
        raise MedvarError(
            f"The scans in {source} lie inside {out.resolve()}, which is to be written; choose another folder."
        )
    with ShardWriter(out, recipe.size, overwrite=overwrite):
        pass  # a folder that may not be written says so now, not after hours
    if dataset_recipe is not None and dataset_recipe.patient_ids == "public":
        pseudonyms = None
    elif dataset_recipe is not None and pseudonyms is None:
        raise MedvarError(f"The recipe {dataset_recipe.name} asks for pseudonyms of its patients, so a key is needed.")
    known, refusals = survey(
        source,
        dataset_recipe=dataset_recipe,
        pseudonyms=pseudonyms,
        include_synthetic=include_synthetic,
        assumed=assumed,
        modality=modality,
        region=region,
        dataset=dataset,
        licence=licence,
    )
    patients = {identity.patient for _, identity in known}
    split = replace(split, holdout=_holdout(split.holdout, patients, pseudonyms, source))
    with parts_folder(out) as folder:
        for partial in folder.parent.glob(f".{out.name}-partial-*"):  # of a process that was killed
            shutil.rmtree(partial, ignore_errors=True)
        works = [Work(series, identity, recipe, source, folder) for series, identity in known]
        parts = _make_parts(works, workers, cluster, progress)
        refusals += [
            Refusal(str(work.series.path), part.refused.removeprefix(f"{work.series.path}: "))
            for work, part in zip(works, parts, strict=True)
            if part.refused is not None
        ]
        named = [plain(one, source) for one in refusals]
        if on_refusal is not None:
            for refusal in named:
                on_refusal(refusal)
        shown = named if pseudonyms is None else anonymous(refusals, source, pseudonyms, known)
        kept = [part for part in parts if part.slices]
        if kept:
            with ShardWriter(out, recipe.size, overwrite=overwrite) as writer:
                cells, remarks = _gather(writer, folder, kept, split.strata)
                sides, on_split = split_patients(
                    cells,
                    test_fraction=split.test_fraction,
                    seed=split.seed,
                    holdout=[one for one in split.holdout if one in cells],
                )
                manifest = writer.finish(
                    sides,
                    recipe=recipe.to_dict() | split.to_dict(),
                    refused=[{"path": one.path, "reason": one.reason} for one in shown],
                    remarks=on_split + _remarks(known, split.holdout, cells, pseudonyms) + remarks,
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


def _make_parts(works: Sequence[Work], workers: int, cluster: str | None, progress: Progress | None) -> list[Part]:
    """The part of every series, in the order of ``works``."""
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
                progress(relative(works[index].series.path, works[index].source), len(parts), len(works), slices)
    return [parts[index] for index in range(len(works))]


def _gather(
    writer: ShardWriter, folder: Path, parts: Iterable[Part], strata: Sequence[str]
) -> tuple[dict[str, set[Cell]], list[str]]:
    """Copy the slices of all parts to the shards; gives the cells of each patient, and what was remarked on the way."""
    cells: dict[str, set[Cell]] = {}
    remarks: list[str] = []
    for part in parts:
        found = read_part(folder, part)
        writer.add(found.codes, found.facts)
        for facts in found.facts:
            cells.setdefault(facts.patient, set()).add(tuple(getattr(facts, name) or "" for name in strata))
        remarks += [f"{found.facts[0].series}: {one}" for one in found.remarks]
    return cells, remarks


def _remarks(
    known: Sequence[Known], holdout: Sequence[str], patients: Iterable[str], pseudonyms: Pseudonyms | None
) -> list[str]:
    remarks = []
    if guessed := sorted({identity.patient for _, identity in known if identity.patient_guessed}):
        remarks.append(
            f"patients {', '.join(guessed[:5])}{', …' if len(guessed) > 5 else ''} are guessed from file names or "
            "studies: if one person has several, name the patients in index.csv, or train and test may share them"
        )
    shared = {
        series.patient
        for series, identity in known
        if series.patient is not None and names_nobody(series.patient)
        if identity.patient in (series.patient, pseudonyms and pseudonyms.patient(series.patient))
    }
    remarks += [
        f"PatientID is {one!r} in some headers, which may stand for several people; they are taken as one person, so "
        "name the patients in index.csv"
        for one in sorted(shared)
    ]
    remarks += [f"held-out patient {one} gave no slices" for one in holdout if one not in set(patients)]
    if pseudonyms is not None:
        remarks.append(f"patients and series have pseudonyms, made with the key {pseudonyms.key_id}")
    return remarks
