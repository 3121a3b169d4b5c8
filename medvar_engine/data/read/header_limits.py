"""Is what a header claims possible? Asked before memory is taken for it."""

from __future__ import annotations

from pathlib import Path

from medvar_engine.errors import MedvarError

MAXIMUM_VOXELS = 2**32  # of one file, all phases together; a whole body CT has 2**29
DEFLATE_RATIO = 1032  # the most that deflate packs into one byte


def check_claim(path: Path, voxels: int, claimed_bytes: int, possible_bytes: int | None) -> None:
    """Refuse a file whose header claims more than the file can hold, or more than is ever read.

    ``possible_bytes`` is what the file can hold at most; None where its compression knows no bound.
    """
    if voxels > MAXIMUM_VOXELS:
        raise MedvarError(f"{path}: its header claims {voxels} voxels; at most {MAXIMUM_VOXELS} are read.")
    if possible_bytes is not None and claimed_bytes > possible_bytes:
        raise MedvarError(
            f"{path}: its header claims {claimed_bytes} bytes of voxels, but the file can hold {possible_bytes} at "
            "most; it may be truncated."
        )
