"""The array files of a folder of shards: NumPy files (N, size, size), written slice by slice and memory-mapped.

Images are uint16; masks, if there are any, are uint8 in separate files.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray
from medvar_engine.storage import sha256
from medvar_engine.untrusted.plain_npy import open_npy
from medvar_engine.value_range import CodeArray


class ImageFile:
    """Writes one shard: slices are written at once, and their number is written into the header at the end."""

    def __init__(self, path: Path, size: int, dtype: str = "<u2") -> None:
        self.slices = 0
        self._dtype = dtype
        self._path, self._size = path, size
        self._file = path.open("wb")
        self._write_header()

    def write(self, codes: CodeArray | MaskArray) -> None:
        """Append slices (N, size, size)."""
        self._file.write(np.ascontiguousarray(codes, dtype=self._dtype).data)
        self.slices += len(codes)

    def finish(self) -> dict[str, Any]:
        """Close the file, without waiting for the disk; returns its entry for the manifest."""
        self._file.seek(0)
        self._write_header()
        self._file.close()
        return {"file": self._path.name, "slices": self.slices, "sha256": sha256(self._path)}

    def discard(self) -> None:
        """Close the file without finishing it."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write_header(self) -> None:
        # NumPy reserves space for a first axis of any length, so the length of the header does not change.
        about = {"descr": self._dtype, "fortran_order": False, "shape": (self.slices, self._size, self._size)}
        np.lib.format.write_array_header_1_0(self._file, about)


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"images-{number:05d}.npy"


def mask_name(number: int) -> str:
    """The file name of the masks of a shard."""
    return f"masks-{number:05d}.npy"


def open_shard(folder: Path, number: int, slices: int, size: int) -> CodeArray:
    """One shard as a read-only memory map (N, size, size). Raises `MedvarError` when it is missing or truncated."""
    return _open(folder / shard_name(number), slices, size, np.dtype(np.uint16))


def open_masks(folder: Path, number: int, slices: int, size: int) -> MaskArray:
    """The masks of one shard, like `open_shard`."""
    return _open(folder / mask_name(number), slices, size, np.dtype(np.uint8))


def _open(path: Path, slices: int, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        array = open_npy(path)
    except (OSError, ValueError, EOFError) as error:
        raise MedvarError(f"{path} is missing or truncated ({error}). Prepare the data again.") from error
    if array.shape != (slices, size, size) or array.dtype != dtype:
        raise MedvarError(
            f"{path} holds {array.dtype} {array.shape}, but the manifest says {dtype} {(slices, size, size)}. "
            "Prepare the data again."
        )
    return np.asarray(array)
