"""A set as shards: pixels by memory map, and an Arrow table of what each image is.

Unit 3 is ``units/00003.npy``, uint16 ``(N, H, W)`` in which 0…65535 stand for -1…1, and ``units/00003.arrow``, a row an
image: its number, condition, seed, and trace as JSON.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medvar_engine.arrays import FloatArray
from medvar_engine.bundle import Bundle
from medvar_engine.conditions import FACTORS
from medvar_engine.data.codes import encode
from medvar_engine.sets.layouts.card import card
from medvar_engine.sets.manifest import UNITS
from medvar_engine.sets.plan import Plan
from medvar_engine.trace import Trace
from medvar_engine.write.files import write_files
from medvar_engine.write.provenance import STATEMENT

_ABOUT = """Shards: `units/*.npy` are uint16 arrays (images, rows, columns) in which 0…65535 stand for -1…1;
`units/*.arrow` have a row for each image, with its number, condition, seed and trace. In Python,
`medvar_engine.sets.read.ImageSet.open(folder)[i]` gives an image and its trace."""


def describe(plan: Plan, bundle: Bundle) -> dict[str, str]:
    """The data card."""
    return {"README.md": card(plan, bundle, _ABOUT)}


def write_shard(
    plan: Plan, unit: int, folder: Path, images: Sequence[FloatArray], traces: Sequence[Trace]
) -> list[Path]:
    """Write the images ``(H, W)`` of a unit as one shard; gives its files."""
    pixels, table = shard_paths(folder, unit)
    codes = io.BytesIO()
    np.lib.format.write_array(codes, encode(np.stack(images)).astype("<u2"), allow_pickle=False)
    write_files({pixels: codes.getvalue(), table: _table(plan.numbers(unit), traces)})
    return [pixels, table]


def shard_paths(folder: Path, unit: int) -> tuple[Path, Path]:
    """Pixels and table of a unit."""
    stem = folder / UNITS / f"{unit:05d}"
    return stem.with_suffix(".npy"), stem.with_suffix(".arrow")


def _table(numbers: range, traces: Sequence[Trace]) -> bytes:
    import pyarrow as pa

    columns = {"number": pa.array(numbers, pa.int64())}
    for name in FACTORS:
        columns[name] = pa.array([getattr(trace.request.condition, name) for trace in traces], pa.utf8())
    columns["seed"] = pa.array([trace.request.seed for trace in traces], pa.uint64())
    columns["trace"] = pa.array([trace.to_json() for trace in traces], pa.utf8())
    table = pa.table(columns).replace_schema_metadata({"synthetic": "true", "statement": STATEMENT})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
