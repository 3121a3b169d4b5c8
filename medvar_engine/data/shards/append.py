"""Appends slices to a folder of shards atomically: readers see the old or the new content."""

from __future__ import annotations

from pathlib import Path

from medvar_engine.conditions import listed
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.shards.join import check_fit, join
from medvar_engine.data.shards.patients import marks, same_patients
from medvar_engine.data.shards.shard_folder import ShardFolder
from medvar_engine.data.shards.shard_manifest import Manifest, remove_unnamed
from medvar_engine.data.shards.tally import strata_of, tally
from medvar_engine.data.split import SplitRule, split_patients
from medvar_engine.storage import changing, flush_folder


def append(folder: Path, more: Path, *, any_recipe: bool = False, pseudonyms: Pseudonyms | None = None) -> Manifest:
    """Add the slices of the prepared folder ``more`` to ``folder``; returns the new manifest.

    Patients of ``folder`` keep their side, and new patients are split by its rule. Patients that ``more`` holds out by
    name are held out, and a split given with the data of ``more`` is kept. Files of ``folder`` are not changed: new
    files are added, and then a new manifest lists all of them. Names of the same patient, recognised by their spelling,
    a common series or a common image, stay together.

    Raises `MedvarError`, and leaves ``folder`` unchanged, when sizes or recipes differ (``any_recipe`` allows another
    recipe), when ``folder`` contains the slices already, or when names of patients cannot be compared: pseudonyms of
    different keys, or public names and pseudonyms without their key in ``pseudonyms``.
    """
    folder, more = Path(folder), Path(more)
    Manifest.read(folder)  # checked before a lock file is created
    with changing(folder):
        parts = [ShardFolder.open(folder), ShardFolder.open(more)]
        old, new = (part.manifest for part in parts)
        remarks = check_fit(parts, any_recipe=any_recipe, pseudonyms=pseudonyms)
        rule = SplitRule.of(old.recipe)
        given = {*SplitRule.of(new.recipe).holdout, *new.given_split}
        kept = {name: side for name, side in new.split.items() if name in given}
        patients = strata_of([group for part in parts for group in tally(part.table)], rule.strata)
        known_marks = marks(parts, pseudonyms)
        one_patient = same_patients(parts, known_marks).groups()
        split, _ = split_patients(
            patients,
            test_fraction=rule.test_fraction,
            seed=rule.seed,
            holdout=[patient for patient in rule.holdout if patient in patients],
            known={**kept, **old.split},
            same=one_patient,
        )
        if moved := sorted(name for name, side in old.split.items() if side == "train" and split[name] == "test"):
            remarks.append(
                f"held out from now on, because they are the same patient as a held-out one: {listed(moved)}"
            )
        named = old
        try:
            # The present table may be in use, so the new one gets another name.
            manifest = join(
                folder, f"slices-{old.slices + new.slices}.arrow", parts, split, remarks, known_marks, one_patient
            )
            flush_folder(folder)
            manifest.write(folder)
            named = manifest
        finally:
            remove_unnamed(folder, named)
    return manifest
