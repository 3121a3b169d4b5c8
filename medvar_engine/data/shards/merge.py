"""Merge folders of shards into a new one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medvar_engine.conditions import listed
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.shards.join import check_fit, join
from medvar_engine.data.shards.patients import marks, same_patients
from medvar_engine.data.shards.shard_folder import ShardFolder
from medvar_engine.data.shards.shard_manifest import Manifest
from medvar_engine.data.shards.slice_table import TABLE
from medvar_engine.data.split import SplitRule
from medvar_engine.errors import MedvarError
from medvar_engine.storage import whole_folder


def merge(
    folders: Sequence[Path], out: Path, *, any_recipe: bool = False, pseudonyms: Pseudonyms | None = None
) -> Manifest:
    """Write the slices of prepared folders, in their order, to the new folder ``out``.

    Patients of one name are one patient, and so are names that differ in their spelling only or share a series or a
    picture. Everybody stays in train or test; who is tested in one folder and trained on in another goes where a split
    that was given with the data says, else to the test.

    Raises `MedvarError` when sizes or recipes differ (``any_recipe`` allows other recipes), or when patients are named
    in ways that cannot be compared: by pseudonyms of different keys, or by public names and pseudonyms without their
    key in ``pseudonyms``.
    """
    if not folders:
        raise MedvarError("Nothing to merge: name one folder of prepared slices or more.")
    parts = [ShardFolder.open(Path(folder)) for folder in folders]
    remarks = check_fit(parts, any_recipe=any_recipe, pseudonyms=pseudonyms)
    manifests = [part.manifest for part in parts]
    given, torn = _joined({name: one.split[name] for name in one.given_split} for one in manifests)
    split, moved = _joined(one.split for one in manifests)
    split |= given
    told = marks(parts, pseudonyms)
    one_patient = same_patients(parts, told).groups()
    for group in one_patient:
        names = [name for name in group if name in split]
        said = {given[name] for name in names if name in given}
        asked = said or {split[name] for name in names}
        side = "test" if len(asked) > 1 else asked.pop()
        torn |= set(names) & set(given) if len(said) > 1 else set()
        moved |= {name for name in names if split[name] != side}
        split |= dict.fromkeys(names, side)
    if held := sorted(name for name in moved if split[name] == "test"):
        remarks.append(f"held out, since one of the merged folders does so: {listed(held)}")
    if trained := sorted(name for name in moved if split[name] == "train"):
        remarks.append(f"trained on, as the split that was given with the data says: {listed(trained)}")
    if torn:
        remarks.append(f"on both sides of the splits that were given, and held out: {listed(sorted(torn))}")
    if len({SplitRule.of(part.manifest.recipe) for part in parts}) > 1:
        remarks.append("the merged folders were split by different rules; new patients are split by the first one's")
    with whole_folder(Path(out)) as partial:
        sides = {patient: split[patient] for patient in sorted(split)}
        manifest = join(partial, TABLE, parts, sides, remarks, told, one_patient)
        manifest.write(partial)
    return manifest


def _joined(splits: Iterable[Mapping[str, str]]) -> tuple[dict[str, str], set[str]]:
    """Patient → side, test where they disagree; and those on whom they disagree."""
    joined: dict[str, str] = {}
    moved = set()
    for split in splits:
        for patient, side in split.items():
            if joined.setdefault(patient, side) != side:
                joined[patient] = "test"
                moved.add(patient)
    return joined, moved
