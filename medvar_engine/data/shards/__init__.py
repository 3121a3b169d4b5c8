"""Shards: slices as 16-bit arrays that are read by memory map, with a table of what each slice is.

A folder holds ``manifest.json``, ``slices.arrow`` (one row a slice) and ``images-00000.npy``, …: uint16 arrays of shape
(N, size, size) in which 0…65535 stand for -1…1. A new folder is written under a temporary name and renamed when
complete. A folder that is there changes by new files beside the old ones and a new manifest that names them: whoever
reads the manifest sees the old folder or the new one.
"""

from medvar_engine.data.shards.append import append
from medvar_engine.data.shards.merge import merge
from medvar_engine.data.shards.resplit import resplit
from medvar_engine.data.shards.shard_folder import ShardFolder
from medvar_engine.data.shards.shard_manifest import MANIFEST, SCHEMA_VERSION, Manifest
from medvar_engine.data.shards.shard_writer import SHARD_SLICES, ShardWriter
from medvar_engine.data.shards.slice_rows import Rows, SliceRow
from medvar_engine.data.shards.slice_table import TABLE
from medvar_engine.data.shards.verify import verify

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "SHARD_SLICES",
    "TABLE",
    "Manifest",
    "Rows",
    "ShardFolder",
    "ShardWriter",
    "SliceRow",
    "append",
    "merge",
    "resplit",
    "verify",
]
