"""`ShardFolder`: a folder of shards, checked and opened for reading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from medvar_engine.data.shards.image_file import open_masks, open_shard
from medvar_engine.data.shards.shard_manifest import Manifest
from medvar_engine.data.shards.slice_table import names, numbers, read_table
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray
from medvar_engine.value_range import CodeArray


@dataclass(frozen=True, slots=True)
class ShardFolder:
    """A folder, its manifest, and its table, memory-mapped."""

    path: Path
    manifest: Manifest
    table: pa.Table

    @classmethod
    def open(cls, path: Path) -> ShardFolder:
        """Open a folder. Raises `MedvarError` when files are missing, truncated or inconsistent."""
        manifest = Manifest.read(path)
        file = path / manifest.table["file"]
        folder = cls(path, manifest, read_table(file))
        lengths = np.array([shard["slices"] for shard in manifest.shards], dtype=np.int64)
        for number in range(len(lengths)):
            folder.shard(number)
            if manifest.masks:
                folder.masks(number)
        if len(folder.table) != manifest.slices:
            raise MedvarError(
                f"{file} has {len(folder.table)} rows, but the manifest says {manifest.slices} slices. "
                "Prepare the data again."
            )
        shards, rows = numbers(folder.table, "shard"), numbers(folder.table, "row")
        inside = (shards >= 0) & (shards < len(lengths)) & (rows >= 0)
        inside[inside] = rows[inside] < lengths[shards[inside]]
        if not inside.all():
            raise MedvarError(f"{file}: slice {int(np.argmin(inside))} points outside the shards.")
        if unknown := sorted(set(names(folder.table, "patient")) - set(manifest.split)):
            raise MedvarError(f"{path}: patient {unknown[0]} is missing in the split of the manifest.")
        return folder

    def shard(self, number: int) -> CodeArray:
        """The images of a shard as a read-only memory map (N, size, size)."""
        return open_shard(self.path, number, int(self.manifest.shards[number]["slices"]), self.manifest.size)

    def masks(self, number: int) -> MaskArray:
        """The masks of a shard, like `shard`. Raises `MedvarError` when there are none."""
        if not self.manifest.structures:
            raise MedvarError(f"The slices in {self.path} have no masks. Prepare slices with `medvar prepare --masks`.")
        return open_masks(self.path, number, int(self.manifest.shards[number]["slices"]), self.manifest.size)
