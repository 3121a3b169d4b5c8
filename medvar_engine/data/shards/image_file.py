"""Image files of a folder of shards: NumPy arrays (N, size, size) of uint16, written slice by slice, read by map."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.storage import flush_to_disk, sha256
from medvar_engine.untrusted.plain_npy import open_npy
from medvar_engine.value_range import CodeArray


class ImageFile:
    """One shard as it is written: slices go to the disk as they come, and their number into the header at the end."""

    def __init__(self, path: Path, size: int) -> None:
        self.slices = 0
        self._path, self._size = path, size
        self._file = path.open("wb")
        self._write_header()

    def write(self, codes: CodeArray) -> None:
        """Append slices (N, size, size)."""
        self._file.write(np.ascontiguousarray(codes, dtype="<u2").data)
        self.slices += len(codes)

    def finish(self) -> dict[str, Any]:
        """Close the file; gives its entry in the manifest."""
        self._file.seek(0)
        self._write_header()
        flush_to_disk(self._file)
        self._file.close()
        return {"file": self._path.name, "slices": self.slices, "sha256": sha256(self._path)}

    def discard(self) -> None:
        """Close the file without finishing it."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write_header(self) -> None:
        # NumPy leaves room for a first axis of any length, so the header's own length does not change.
        about = {"descr": "<u2", "fortran_order": False, "shape": (self.slices, self._size, self._size)}
        np.lib.format.write_array_header_1_0(self._file, about)


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"images-{number:05d}.npy"


def open_shard(folder: Path, number: int, slices: int, size: int) -> CodeArray:
    """One shard as a read-only memory map (N, size, size). Raises `MedvarError` when it is missing or truncated."""
    path = folder / shard_name(number)
    try:
        array = open_npy(path)
    except (OSError, ValueError, EOFError) as error:
        raise MedvarError(f"{path} is missing or truncated ({error}). Prepare the data again.") from error
    if array.shape != (slices, size, size) or array.dtype != np.uint16:
        raise MedvarError(
            f"{path} holds {array.dtype} {array.shape}, but the manifest says uint16 {(slices, size, size)}. "
            "Prepare the data again."
        )
    return np.asarray(array)
