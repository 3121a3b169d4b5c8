"""Matching of patients between folders that are joined: comparable ids, and names of the same patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np

from medvar_engine.data.duplicates.same_image import join_by_images
from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.identity.same_patient import SamePatient, by_marks, marks_of
from medvar_engine.data.shards.shard_folder import ShardFolder
from medvar_engine.data.shards.shard_manifest import Manifest
from medvar_engine.data.shards.slice_table import fingerprints, names, numbers
from medvar_engine.data.shards.tally import distinct_rows
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import CodeArray

PUBLIC = "public"
_KEY = re.compile(r"made with the key (k-[0-9a-f]+)")  # the remark in folders of older versions
_OPEN_SHARDS = 128


def patient_ids(manifest: Manifest) -> list[str]:
    """The kinds of patient ids in a folder: ``"public"``, or ids of keys; empty if all images are synthetic."""
    if manifest.recipe.get("synthetic"):
        return []
    ids = manifest.patient_ids or [key for remark in manifest.remarks for key in _KEY.findall(remark)]
    return sorted(set(ids)) or [PUBLIC]


def check_ids(ours: Sequence[str], theirs: Sequence[str], what: str, pseudonyms: Pseudonyms | None) -> None:
    """Raises `MedvarError` if one patient may have two names that cannot be compared.

    Pseudonyms of two keys cannot be compared; public names and pseudonyms can, with the key in ``pseudonyms``.
    """
    together = {*ours, *theirs}
    keys = sorted(together - {PUBLIC})
    if len(keys) > 1:
        raise MedvarError(
            f"{what} have pseudonyms of different keys ({', '.join(keys)}), so one patient may have two names, in "
            "training and in test. Prepare one of them again with the key of the other (--key)."
        )
    if keys and PUBLIC in together and (pseudonyms is None or pseudonyms.key_id != keys[0]):
        raise MedvarError(
            f"Some patients of {what} have public names and others pseudonyms of the key {keys[0]}, so one patient may "
            "have two names, in training and in test. Name that key (--key) to compare them, or prepare both with the "
            "same --patient-ids."
        )


def marks(parts: Sequence[ShardFolder], pseudonyms: Pseudonyms | None) -> dict[str, list[str]]:
    """The marks of each patient, by which two names are recognised as one patient. Reads folders of public names."""
    keyed = any(set(patient_ids(part.manifest)) - {PUBLIC} for part in parts)
    found: dict[str, set[str]] = {}
    for part in parts:
        own = {name: set(marks) for name, marks in part.manifest.marks.items()}
        if patient_ids(part.manifest) == [PUBLIC]:
            series_of_patients, _ = distinct_rows(part.table, ("patient", "series"))
            for patient, series in series_of_patients:
                marks = marks_of(patient or "", [series or ""], pseudonyms if keyed else None)
                own.setdefault(patient or "", set()).update(marks)
        for name, its_marks in own.items():
            found.setdefault(name, set()).update(its_marks)
    return {name: sorted(marks) for name, marks in sorted(found.items())}


def same_patients(parts: Sequence[ShardFolder], known_marks: dict[str, list[str]]) -> SamePatient:
    """Find names of the same patient in the folders, by their manifests, their marks, and equal images."""
    same = by_marks(known_marks)
    for part in parts:
        for first, *others in part.manifest.one_patient:
            for other in others:
                same.join(first, other)
    prints = np.concatenate([fingerprints(part.table) for part in parts])
    patients = [name for part in parts for name in _patients(part)]
    first_rows = list(accumulate((len(part.table) for part in parts), initial=0))
    places = [(numbers(part.table, "shard"), numbers(part.table, "row")) for part in parts]
    shard = lru_cache(maxsize=_OPEN_SHARDS)(lambda which, number: parts[which].shard(number))

    def codes(at: int) -> CodeArray:
        which = int(np.searchsorted(first_rows, at, side="right")) - 1
        shards, rows = places[which]
        within = at - first_rows[which]
        return shard(which, int(shards[within]))[rows[within]]  # type: ignore[no-any-return]

    join_by_images(same, prints, patients, codes)
    return same


def _patients(part: ShardFolder) -> list[str]:
    words = names(part.table, "patient")
    return [words[number] for number in numbers(part.table, "patient").tolist()]
