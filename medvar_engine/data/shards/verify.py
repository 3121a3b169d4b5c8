"""Is every file of a folder of shards as it was written?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medvar_engine.data.shards.files import sha256
from medvar_engine.data.shards.manifest import MANIFEST, Manifest
from medvar_engine.data.shards.reader import ShardFolder
from medvar_engine.data.shards.tally import counts, tally
from medvar_engine.errors import MedvarError


def verify(folder: Path, progress: Callable[[str, int, int], None] | None = None) -> Manifest:
    """Compare every file with its sha256, and table, shards and split with each other.

    ``progress`` is called with the file being read, how many are done, and how many there are. Raises `MedvarError`
    naming every file that differs.
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
    groups = tally(ShardFolder.open(folder).table)
    if gone := sorted(set(manifest.split) - {group["patient"] for group in groups}):
        raise MedvarError(f"{folder / MANIFEST}: patient {gone[0]} is in the split, but has no slices.")
    if counts(groups, manifest.split) != manifest.counts:
        raise MedvarError(f"{folder / MANIFEST}: the counts are not those of the slices. Prepare the data again.")
    return manifest
