"""Checks the size in a header against the file before memory is allocated."""

from __future__ import annotations

from pathlib import Path

from medvar_engine.errors import MedvarError

MAXIMUM_VOXELS = 2**32  # voxels of one file with all phases; a whole-body CT has 2**29
DEFLATE_RATIO = 1032  # largest compression ratio of deflate


def check_claim(path: Path, voxels: int, claimed_bytes: int, possible_bytes: int | None) -> None:
    """Raise `MedvarError` if a header claims more data than the file can hold, or more than the limit.

    ``possible_bytes`` is the largest amount that the file can hold; None if its compression has no limit.
    """
    if voxels > MAXIMUM_VOXELS:
        raise MedvarError(f"{path}: its header claims {voxels} voxels; at most {MAXIMUM_VOXELS} are read.")
    if possible_bytes is not None and claimed_bytes > possible_bytes:
        raise MedvarError(
            f"{path}: its header claims {claimed_bytes} bytes of voxels, but the file can hold {possible_bytes} at "
            "most; it may be truncated."
        )
