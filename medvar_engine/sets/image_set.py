"""`ImageSet`: reads images and traces of a synthetic dataset of shards by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import MaskArray, Structures
from medvar_engine.sets.layouts.shards import masks_path, shard_paths
from medvar_engine.sets.set_manifest import SetManifest
from medvar_engine.sets.set_unit import finished, note_path
from medvar_engine.types import FloatArray
from medvar_engine.untrusted.plain_npy import open_npy
from medvar_engine.value_range import CodeArray, decode

if TYPE_CHECKING:
    import pyarrow as pa

_AGAIN = "Run the command that made the dataset again: it replaces damaged units."
_OPEN = 64  # number of shards that stay open


class SyntheticImage(NamedTuple):
    """One synthetic image ``(H, W)`` in [-1, 1] and its trace."""

    image: FloatArray
    trace: Trace


@dataclass(frozen=True, slots=True)
class ImageSet:
    """A complete synthetic dataset of shards, read as memory maps.

    >>> images = ImageSet.open(Path("synthetic"))  # doctest: +SKIP
    >>> images[7].trace.request.condition  # doctest: +SKIP
    """

    path: Path
    manifest: SetManifest

    @classmethod
    def open(cls, path: Path) -> ImageSet:
        """Open a dataset. Raises `MedvarError` when it is incomplete, not of shards, or damaged."""
        manifest = SetManifest.read(path)
        if manifest.plan.kind.layout != "shards":
            raise MedvarError(f"{path} is a dataset in the layout {manifest.plan.kind}. Read its files one by one.")
        if not manifest.complete:
            raise MedvarError(f"{path} is not complete. Run the command that began it again to continue it.")
        return cls(path, manifest)

    def __len__(self) -> int:
        """The number of images, including withheld ones."""
        return self.manifest.plan.count

    def __getitem__(self, number: int) -> SyntheticImage:
        """Image ``number``.

        Raises `IndexError` beyond the last image, and `MedvarError` when it is withheld or its shard is damaged.
        """
        number = range(len(self))[number]
        if number in self.manifest.withheld:
            raise MedvarError(f"Image {number} of {self.path} is withheld: it may be a copy of a training slice.")
        unit = number // self.manifest.plan.unit_images
        row = self.numbers(unit).index(number)
        codes, table = self._shard(unit)
        return SyntheticImage(decode(codes[row]), Trace.from_json(table["trace"][row].as_py()))

    def __iter__(self) -> Iterator[SyntheticImage]:
        return (self[number] for number in range(len(self)) if number not in self.manifest.withheld)

    def numbers(self, unit: int) -> list[int]:
        """The image numbers of a unit, without withheld images."""
        return [number for number in self.manifest.plan.numbers(unit) if number not in self.manifest.withheld]

    def codes(self, unit: int) -> CodeArray:
        """The stored pixels of `numbers`: uint16 ``(N, H, W)``, a read-only memory map."""
        return self._shard(unit)[0]

    def masks(self, unit: int) -> MaskArray:
        """The masks of `numbers`: uint8 ``(N, H, W)``, a read-only memory map.

        Raises `MedvarError` when they are missing or damaged, or the model makes none.
        """
        shape = self.codes(unit).shape
        return _opened_masks(self.path, unit, self.manifest.units[unit], shape, len(self.structures))

    @property
    def structures(self) -> Structures:
        """The structures of masks, in the order of their values from 1 up; empty without masks."""
        return self.manifest.structures

    def table(self) -> pa.Table:
        """Number, condition, seed and trace of every image, as a memory map."""
        import pyarrow as pa

        return pa.concat_tables(self._shard(unit)[1] for unit in range(self.manifest.plan.units))

    def verify(self) -> None:
        """Check the sha256 of every file. Raises `MedvarError` that names the first damaged unit."""
        for unit, digest in enumerate(self.manifest.units):
            if finished(self.manifest.plan, unit, self.path) != digest:
                raise MedvarError(f"{note_path(self.path, unit)}: unit {unit} is damaged. {_AGAIN}")

    def _shard(self, unit: int) -> tuple[CodeArray, pa.Table]:
        codes, table = _opened(self.path, unit, self.manifest.units[unit])
        images = len(self.numbers(unit))
        if codes.dtype != np.uint16 or codes.ndim != 3 or not len(codes) == len(table) == images:
            raise MedvarError(f"{note_path(self.path, unit)}: unit {unit} does not hold {images} images. {_AGAIN}")
        return codes, table


@lru_cache(maxsize=_OPEN)
def _opened_masks(folder: Path, unit: int, note: str, shape: tuple[int, ...], structures: int) -> MaskArray:
    """The masks of a unit, of ``shape`` and of that many structures; ``note`` is that of `_opened`."""
    path = masks_path(folder, unit)
    try:
        masks = open_npy(path)
    except (OSError, ValueError) as error:
        raise MedvarError(f"{path} is missing or damaged ({error}). {_AGAIN}") from error
    if masks.dtype != np.uint8 or masks.shape != shape or masks.max(initial=0) > structures:
        raise MedvarError(f"{path} does not hold a mask for every image of its unit. {_AGAIN}")
    return masks


@lru_cache(maxsize=_OPEN)
def _opened(folder: Path, unit: int, note: str) -> tuple[CodeArray, pa.Table]:
    """The two files of a unit; ``note`` distinguishes the files after the dataset was enlarged."""
    import pyarrow as pa

    pixels, rows = shard_paths(folder, unit)
    try:
        table = pa.ipc.open_file(pa.memory_map(str(rows))).read_all()
        table.validate(full=True)  # a wrong offset would read outside the memory
        table["trace"]
        return open_npy(pixels), table
    except (OSError, ValueError, EOFError, KeyError, pa.ArrowException) as error:
        raise MedvarError(f"Shard {unit} of {folder} is missing or damaged ({error}). {_AGAIN}") from error
