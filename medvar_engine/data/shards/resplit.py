"""Splits the patients of a folder of shards again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medvar_engine.data.identity.same_patient import remarks_on_same
from medvar_engine.data.shards.join import lasting_remarks
from medvar_engine.data.shards.patients import marks, same_patients
from medvar_engine.data.shards.shard_folder import ShardFolder
from medvar_engine.data.shards.shard_manifest import Manifest
from medvar_engine.data.shards.tally import counts, strata_of, tally
from medvar_engine.data.split import SplitRule, split_patients
from medvar_engine.storage import changing


def resplit(folder: Path, rule: SplitRule) -> Manifest:
    """Split the patients of ``folder`` by another rule. Only the manifest changes, in one step.

    A split that was given with the data is replaced, too. Raises `MedvarError` when a patient to hold out does not
    exist, and leaves the folder unchanged.
    """
    folder = Path(folder)
    Manifest.read(folder)  # checked before a lock file is created
    with changing(folder):
        part = ShardFolder.open(folder)
        groups = tally(part.table)
        known_marks = marks([part], None)
        one_patient = same_patients([part], known_marks).groups()
        split, remarks = split_patients(
            strata_of(groups, rule.strata),
            test_fraction=rule.test_fraction,
            seed=rule.seed,
            holdout=rule.holdout,
            same=one_patient,
        )
        manifest = replace(
            part.manifest,
            recipe=part.manifest.recipe | rule.to_dict(),
            counts=counts(groups, split),
            split=split,
            given_split=[],
            one_patient=[list(group) for group in one_patient],
            remarks=[*lasting_remarks(part), *remarks_on_same(one_patient), *remarks],
        )
        manifest.write(folder)
    return manifest
