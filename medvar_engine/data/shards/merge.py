"""Merges folders of shards into a new folder."""

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

    Equal names are one patient, and so are names that differ in spelling only, or share a series or an image. Patients
    keep their side. A patient who is tested in one folder and trained on in another gets the side of a split that was
    given with the data, or else the test.

    Raises `MedvarError` when sizes or recipes differ (``any_recipe`` allows other recipes), or when names of patients
    cannot be compared: pseudonyms of different keys, or public names and pseudonyms without their key in
    ``pseudonyms``.
    """
    if not folders:
        raise MedvarError("There is nothing to merge. Give one or more folders of prepared slices.")
    parts = [ShardFolder.open(Path(folder)) for folder in folders]
    remarks = check_fit(parts, any_recipe=any_recipe, pseudonyms=pseudonyms)
    manifests = [part.manifest for part in parts]
    given, torn = _joined({name: one.split[name] for name in one.given_split} for one in manifests)
    split, moved = _joined(one.split for one in manifests)
    split |= given
    known_marks = marks(parts, pseudonyms)
    one_patient = same_patients(parts, known_marks).groups()
    for group in one_patient:
        names = [name for name in group if name in split]
        said = {given[name] for name in names if name in given}
        asked = said or {split[name] for name in names}
        side = "test" if len(asked) > 1 else asked.pop()
        torn |= set(names) & set(given) if len(said) > 1 else set()
        moved |= {name for name in names if split[name] != side}
        split |= dict.fromkeys(names, side)
    if held := sorted(name for name in moved if split[name] == "test"):
        remarks.append(f"held out, because one of the merged folders holds them out: {listed(held)}")
    if trained := sorted(name for name in moved if split[name] == "train"):
        remarks.append(f"used for training, according to the split given with the data: {listed(trained)}")
    if torn:
        remarks.append(f"on both sides of the given splits, and therefore held out: {listed(sorted(torn))}")
    if len({SplitRule.of(part.manifest.recipe) for part in parts}) > 1:
        remarks.append(
            "the merged folders were split by different rules; new patients are split by the rule of the first folder"
        )
    with whole_folder(Path(out)) as partial:
        sides = {patient: split[patient] for patient in sorted(split)}
        manifest = join(partial, TABLE, parts, sides, remarks, known_marks, one_patient)
        manifest.write(partial)
    return manifest


def _joined(splits: Iterable[Mapping[str, str]]) -> tuple[dict[str, str], set[str]]:
    """Patient → side, with test where the splits disagree; and the patients on whom they disagree."""
    joined: dict[str, str] = {}
    moved = set()
    for split in splits:
        for patient, side in split.items():
            if joined.setdefault(patient, side) != side:
                joined[patient] = "test"
                moved.add(patient)
    return joined, moved
