"""Verifies that a folder of shards is unchanged and consistent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medvar_engine.data.shards.patients import marks, same_patients
from medvar_engine.data.shards.shard_folder import ShardFolder
from medvar_engine.data.shards.shard_manifest import MANIFEST, Manifest
from medvar_engine.data.shards.tally import counts, tally
from medvar_engine.errors import MedvarError
from medvar_engine.storage import sha256


def verify(folder: Path, progress: Callable[[str, int, int], None] | None = None) -> Manifest:
    """Check the sha256 of every file, the consistency of table, shards and split, and the separation of train and test.

    ``progress`` is called with the name of the file, the number of finished files, and the number of all files. Raises
    `MedvarError` that lists every changed file, or patients and slices that are both in training and in test.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    wrong = []
    for done, (name, digest) in enumerate(manifest.files.items()):
        if progress is not None:
            progress(name, done, len(manifest.files))
        try:
            if sha256(folder / name) != digest:
                wrong.append(f"{name} was changed after it was written")
        except OSError as error:
            wrong.append(f"{name} cannot be read ({error.strerror})")
    if wrong:
        raise MedvarError(
            f"{folder} is damaged: {'; '.join(wrong)}. Copy these files again, or prepare the data again."
        )
    if progress is not None:
        progress("done", len(manifest.files), len(manifest.files))
    opened = ShardFolder.open(folder)
    groups = tally(opened.table)
    if gone := sorted(set(manifest.split) - {group["patient"] for group in groups}):
        raise MedvarError(f"{folder / MANIFEST}: patient {gone[0]} is in the split, but has no slices.")
    if counts(groups, manifest.split) != manifest.counts:
        raise MedvarError(f"{folder / MANIFEST}: the counts do not match the slices. Prepare the data again.")
    _check_apart(folder, opened)
    return manifest


def _check_apart(folder: Path, opened: ShardFolder) -> None:
    """Raises `MedvarError` when a patient or an image is both in training and in test."""
    split = opened.manifest.split
    same = same_patients([opened], marks([opened], None))
    across = [names for names in same.groups() if len({split[name] for name in names if name in split}) > 1]
    if across:
        pairs = "; ".join(" = ".join(names[:5]) for names in across[:10]) + ("; …" if len(across) > 10 else "")
        raise MedvarError(
            f"{folder}: training and test share patients or near-identical slices: {pairs}. Metrics on the test slices "
            "would be too good. `medvar data split` puts each patient on one side; or give them the same name in "
            "index.csv, and prepare again."
        )
