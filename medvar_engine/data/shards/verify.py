"""Is every file of a folder of shards as it was written?"""

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
    """Compare every file with its sha256, table, shards and split with each other, and training with test.

    ``progress`` is called with the file being read, how many are done, and how many there are. Raises `MedvarError`
    naming every file that differs, or patients and slices that are in training and in test.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    wrong = []
    for done, (name, digest) in enumerate(manifest.files.items()):
        if progress is not None:
            progress(name, done, len(manifest.files))
        try:
            if sha256(folder / name) != digest:
                wrong.append(f"{name} is not as it was written")
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
        raise MedvarError(f"{folder / MANIFEST}: the counts are not those of the slices. Prepare the data again.")
    _check_apart(folder, opened)
    return manifest


def _check_apart(folder: Path, opened: ShardFolder) -> None:
    """Raises `MedvarError` when a patient, or a picture, is in training and in test."""
    split = opened.manifest.split
    same = same_patients([opened], marks([opened], None))
    across = [names for names in same.groups() if len({split[name] for name in names if name in split}) > 1]
    if across:
        told = "; ".join(" = ".join(names[:5]) for names in across[:10]) + ("; …" if len(across) > 10 else "")
        raise MedvarError(
            f"{folder}: training and test share patients or near-identical slices: {told}. What is measured on the "
            "test slices would be too good. `medvar data split` puts each on one side; or name them alike in "
            "index.csv, and prepare again."
        )
