"""`prepare`: a folder of scans to a folder of shards, in one pass over the scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medvar_engine.data.identity import Identity, identify
from medvar_engine.data.index import read_index
from medvar_engine.data.read import LOOKED_FOR, Refusal, Series, find_series
from medvar_engine.data.recipe import Recipe
from medvar_engine.data.series_slices import relative, slices_of
from medvar_engine.data.shards import Manifest, ShardWriter
from medvar_engine.data.slices import PLANES, SliceRules
from medvar_engine.data.split import split_patients
from medvar_engine.errors import MedvarError

Progress = Callable[[str, int, int], None]
"""Called with what is being read, how many series are done, and how many there are."""


def prepare(
    source: Path,
    out: Path,
    *,
    size: int = 128,
    planes: Sequence[str] = PLANES,
    modality: str | None = None,
    region: str | None = None,
    dataset: str | None = None,
    licence: str | None = None,
    window: str | None = None,
    holdout: Sequence[str] = (),
    test_fraction: float = 0.1,
    seed: int = 0,
    phase_step: int = 8,
    overwrite: bool = False,
    rules: SliceRules | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Read the scans in ``source`` (a folder or a file) and write shards of ``size``-pixel slices to ``out``.

    What a scan is comes from ``index.csv`` in ``source``, else from ``modality``, ``region`` and ``dataset``, else from
    the DICOM header. ``window`` names the CT window for all regions, instead of each region's own. ``holdout`` are the
    patients of the test split; without it a ``test_fraction`` of each modality × region is drawn by ``seed``. Of a scan
    over time every ``phase_step``-th phase is taken. Patients are written as the index or the headers name them.

    What cannot be used is refused, with the reason in `Manifest.refused`, and the rest goes on. Raises `MedvarError`
    when nothing is left, and then ``out`` is as it was.
    """
    source, out = Path(source), Path(out)
    if source.resolve().is_relative_to(out.resolve()):
        raise MedvarError(f"The scans in {source} lie inside {out}, which is to be written; choose another folder.")
    recipe = Recipe(size, window, SliceRules(tuple(planes)) if rules is None else rules, phase_step)
    index = read_index(source) if source.is_dir() else []
    series, refusals = find_series(source)
    if not series and not refusals:
        raise MedvarError(f"No images found below {source}; looked for {LOOKED_FOR}.")
    arguments = {"modality": modality, "region": region, "dataset": dataset, "licence": licence}
    known: list[tuple[Series, Identity]] = []
    for one in series:
        try:
            known.append((one, identify(one, index, source, **arguments)))
        except MedvarError as error:
            refusals.append(Refusal(str(one.path), str(error)))
    found = {one.path for one in series}
    for row in index:
        if not any(path.is_relative_to(source / row.path) for path in found):
            refusals.append(Refusal(str(source / row.path), "index.csv names it, but no image was found there"))
    patients = {identity.patient for _, identity in known}
    if unknown := sorted(set(holdout) - patients):
        names = ", ".join(sorted(patients)[:20]) + (", …" if len(patients) > 20 else "")
        raise MedvarError(f"Held-out patients {unknown} are not in {source}; its patients are {names}.")

    with ShardWriter(out, size, overwrite=overwrite) as writer:
        for done, (one, identity) in enumerate(known):
            if progress is not None:
                progress(relative(one.path, source), done, len(known))
            try:
                found_slices = slices_of(one, identity, recipe, source)
                writer.add(found_slices.codes, found_slices.facts)
            except MedvarError as error:
                refusals.append(Refusal(str(one.path), str(error)))
        if progress is not None:
            progress("done", len(known), len(known))
        refused = [
            {"path": relative(Path(one.path), source), "reason": one.reason.replace(f"{source}/", "")}
            for one in refusals
        ]
        if not writer.rows:
            reasons = "\n".join(f"  {one['path']}: {one['reason']}" for one in refused[:20])
            raise MedvarError(f"No slices could be made from {source}; what was found was refused:\n{reasons}")
        cells: dict[str, set[tuple[str, str]]] = {}
        for one_slice in writer.rows:
            cells.setdefault(one_slice.patient, set()).add((one_slice.modality, one_slice.region or ""))
        split, remarks = split_patients(
            cells, test_fraction=test_fraction, seed=seed, holdout=[one for one in holdout if one in cells]
        )
        if guessed := sorted({identity.patient for one, identity in known if identity.patient_guessed}):
            remarks.append(
                f"patients {', '.join(guessed[:5])}{', …' if len(guessed) > 5 else ''} are guessed from file names or "
                "studies: if one person has several, name the patients in index.csv, or train and test may share them"
            )
        remarks += [f"held-out patient {one} gave no slices" for one in holdout if one not in cells]
        made = recipe.to_dict() | {"seed": seed, "test_fraction": test_fraction, "holdout": list(holdout)}
        return writer.finish(split, recipe=made, refused=refused, remarks=remarks)
