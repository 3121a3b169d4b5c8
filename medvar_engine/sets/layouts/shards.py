"""The layout of shards: arrays of pixels and Arrow tables of metadata.

Unit 3 is ``units/00003.npy``, uint16 ``(N, H, W)`` in which 0…65535 stand for -1…1, and ``units/00003.arrow``, with one
row per image: its number, condition, seed, trace as JSON, and the distance to training slices if it was computed.
Withheld images have no row.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import NAMED
from medvar_engine.sets.layouts.data_card import card
from medvar_engine.sets.set_image import SetImage
from medvar_engine.sets.set_manifest import UNITS
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.storage import write_files
from medvar_engine.value_range import encode
from medvar_engine.write.provenance import STATEMENT

_ABOUT = """Shards: `units/*.npy` are uint16 arrays (images, rows, columns) in which 0…65535 stand for -1…1;
`units/*.arrow` have a row for each image, with its number, condition, seed and trace. In Python,
`medvar_engine.sets.image_set.ImageSet.open(folder)[i]` gives an image and its trace."""


def describe(plan: SetPlan, bundle: Bundle, withheld: Collection[int]) -> dict[str, str]:
    """The data card."""
    values = ", ".join(f"{value} {one.name}" for value, one in enumerate(bundle.structures, 1))
    masks = f"\n\n`units/*-masks.npy` are the masks of the images, uint8: 0 nothing, {values}." if values else ""
    return {"README.md": card(plan, bundle, _ABOUT + masks, withheld)}


def write_shard(unit: int, folder: Path, images: Sequence[SetImage], side: int) -> list[Path]:
    """Write images of a unit, of ``side`` pixels per side, as one shard; returns its files."""
    pixels, table = shard_paths(folder, unit)
    codes = io.BytesIO()
    stack = np.array([made.image for made in images], dtype=np.float32).reshape(-1, side, side)
    np.lib.format.write_array(codes, encode(stack).astype("<u2"), allow_pickle=False)
    files = {pixels: codes.getvalue(), table: _table(images)}
    if masks := [made.mask for made in images if made.mask is not None]:
        stacked = io.BytesIO()
        np.lib.format.write_array(stacked, np.stack(masks), allow_pickle=False)
        files[masks_path(folder, unit)] = stacked.getvalue()
    write_files(files)
    return list(files)


def shard_paths(folder: Path, unit: int) -> tuple[Path, Path]:
    """The paths of the pixels and the table of a unit."""
    stem = folder / UNITS / f"{unit:05d}"
    return stem.with_suffix(".npy"), stem.with_suffix(".arrow")


def masks_path(folder: Path, unit: int) -> Path:
    """The path of the masks of a unit, of a model that makes masks."""
    return folder / UNITS / f"{unit:05d}-masks.npy"


def _table(images: Sequence[SetImage]) -> bytes:
    import pyarrow as pa

    traces = [made.trace for made in images]
    columns = {"number": pa.array([made.number for made in images], pa.int64())}
    conditions = [trace.request.condition for trace in traces]
    for name in NAMED:
        columns[name] = pa.array([getattr(condition, name) for condition in conditions], pa.utf8())
    columns["position"] = pa.array([condition.position for condition in conditions], pa.float64())
    columns["seed"] = pa.array([trace.request.seed for trace in traces], pa.uint64())
    columns["trace"] = pa.array([trace.to_json() for trace in traces], pa.utf8())
    distances = [None if made.copy_risk is None else made.copy_risk.distance for made in images]
    columns["distance"] = pa.array(distances, pa.float32())
    columns["too_near"] = pa.array([made.flagged for made in images], pa.bool_())
    table = pa.table(columns).replace_schema_metadata({"synthetic": "true", "statement": STATEMENT})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
