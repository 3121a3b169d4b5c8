"""Checks the size in a header against the file before memory is allocated."""

from __future__ import annotations

from pathlib import Path

from medvar_engine.errors import MedvarError

MAXIMUM_VOXELS = 2**32  # voxels of one file with all phases; a whole-body CT has 2**29
DEFLATE_RATIO = 1032  # largest compression ratio of deflate, which nearly empty label maps reach
SCAN_RATIO = 200  # largest compression ratio of a scan; usual are 2 to 10
SMALL_BYTES = 64 * 2**20  # unpacked size below which the ratio is not checked


def most_unpacked(packed_bytes: int, ratio: int = SCAN_RATIO) -> int:
    """The largest size to which a packed file may unfold, by its own size."""
    return max(SMALL_BYTES, ratio * packed_bytes)


def check_claim(path: Path, voxels: int, claimed_bytes: int, possible_bytes: int) -> None:
    """Raise `MedvarError` if a header claims more than ``possible_bytes`` of the file, or more than the limit."""
    _check_voxels(path, voxels)
    if claimed_bytes > possible_bytes:
        raise MedvarError(
            f"{path}: its header claims {claimed_bytes} bytes of voxels, but the file can hold {possible_bytes} at "
            "most; it may be truncated."
        )


def check_packed(path: Path, voxels: int, claimed_bytes: int, packed_bytes: int, ratio: int = SCAN_RATIO) -> None:
    """Raise `MedvarError` if a header claims far more than ``packed_bytes`` of compressed data hold, or the limit."""
    _check_voxels(path, voxels)
    if claimed_bytes > most_unpacked(packed_bytes, ratio):
        raise MedvarError(
            f"{path}: its header claims {claimed_bytes} bytes of voxels, more than {ratio} times as many as it has "
            "compressed: it is truncated, or nearly empty. Store it without compression if you trust it."
        )


def _check_voxels(path: Path, voxels: int) -> None:
    if voxels > MAXIMUM_VOXELS:
        raise MedvarError(f"{path}: its header claims {voxels} voxels; at most {MAXIMUM_VOXELS} are read.")
