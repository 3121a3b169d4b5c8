"""Merge folders of shards into a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medvar_engine.conditions import listed
from medvar_engine.data.privacy import Pseudonyms
from medvar_engine.data.shards.files import whole_folder
from medvar_engine.data.shards.join import check_fit, join
from medvar_engine.data.shards.manifest import Manifest
from medvar_engine.data.shards.patients import marks, same_patients
from medvar_engine.data.shards.reader import ShardFolder
from medvar_engine.data.shards.table import TABLE
from medvar_engine.data.split import SplitRule
from medvar_engine.errors import MedvarError


def merge(
    folders: Sequence[Path], out: Path, *, any_recipe: bool = False, pseudonyms: Pseudonyms | None = None
) -> Manifest:
    """Write the slices of prepared folders, in their order, to the new folder ``out``.

    Patients of one name are one patient, and so are names that differ in their spelling only or share a series or a
    picture. Everybody stays in train or test; who is tested in one folder and trained on in another is tested.

    Raises `MedvarError` when sizes or recipes differ (``any_recipe`` allows other recipes), or when patients are named
    in ways that cannot be compared: by pseudonyms of different keys, or by public names and pseudonyms without their
    key in ``pseudonyms``.
    """
    if not folders:
        raise MedvarError("Nothing to merge: name one folder of prepared slices or more.")
    parts = [ShardFolder.open(Path(folder)) for folder in folders]
    remarks = check_fit(parts, any_recipe=any_recipe, pseudonyms=pseudonyms)
    split: dict[str, str] = {}
    moved = set()
    for part in parts:
        for patient, side in part.manifest.split.items():
            if split.setdefault(patient, side) != side:
                split[patient] = "test"
                moved.add(patient)
    told = marks(parts, pseudonyms)
    one_patient = same_patients(parts, told).groups()
    for names in one_patient:
        present = [name for name in names if name in split]
        if len({split[name] for name in present}) > 1:
            moved |= {name for name in present if split[name] == "train"}
            split |= dict.fromkeys(present, "test")
    if moved:
        remarks.append(f"held out, since one of the merged folders does so: {listed(sorted(moved))}")
    if len({SplitRule.of(part.manifest.recipe) for part in parts}) > 1:
        remarks.append("the merged folders were split by different rules; new patients are split by the first one's")
    with whole_folder(Path(out)) as partial:
        sides = {patient: split[patient] for patient in sorted(split)}
        manifest = join(partial, TABLE, parts, sides, remarks, told, one_patient)
        manifest.write(partial)
    return manifest
