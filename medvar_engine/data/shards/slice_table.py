"""The table of a folder of shards: a memory-mapped Arrow IPC file with one row per slice.

Its columns are the fields of `SliceFacts`, and ``shard`` and ``row``, the place of the slice. Names are stored once
(dictionary encoding), so a row takes about a hundred bytes.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvar_engine.data.duplicates.fingerprint import BITS
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.errors import MedvarError
from medvar_engine.storage import flush_to_disk, sha256

TABLE = "slices.arrow"
BATCH_ROWS = 8192
PLACE = ("shard", "row")
_TYPES = {str: pa.utf8(), float: pa.float64(), int: pa.int64(), bytes: pa.binary(BITS // 8)}

Batches = Callable[[], Iterable[pa.RecordBatch]]
"""A function that yields the rows of a table in batches of `PLAIN`; it can be called repeatedly."""


def _columns() -> Iterator[pa.Field]:
    for name, kind in get_type_hints(SliceFacts).items():
        [plain] = set(get_args(kind) or (kind,)) - {types.NoneType}
        yield pa.field(name, _TYPES[plain], nullable=plain is not kind)
    for name in PLACE:
        yield pa.field(name, pa.int32(), nullable=False)


PLAIN = pa.schema(_columns())
"""The schema of rows in memory, with names as text."""
NAMES = tuple(column.name for column in PLAIN if pa.types.is_string(column.type))
SCHEMA = pa.schema(
    column.with_type(pa.dictionary(pa.int32(), pa.utf8())) if column.name in NAMES else column for column in PLAIN
)
"""The schema of rows in the file, with dictionary-encoded names."""
_POSITION = SCHEMA.get_field_index("position")


def rows_of(facts: Sequence[SliceFacts], places: Iterable[tuple[int, int]]) -> pa.RecordBatch:
    """Metadata and places (shard, row) as a batch of `PLAIN`.

    Raises `MedvarError` for a value that cannot be stored.
    """
    columns: dict[str, Any] = {one.name: [getattr(fact, one.name) for fact in facts] for one in fields(SliceFacts)}
    columns |= dict(zip(PLACE, zip(*places, strict=True), strict=True))
    for column in PLAIN:
        try:
            array = pa.array(columns[column.name], column.type)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise MedvarError(f"The slices' {column.name} cannot be stored: {error}.") from error
        if array.null_count and not column.nullable:
            raise MedvarError(f"The {column.name} of a slice is missing.")
        columns[column.name] = array
    return pa.record_batch(columns, schema=PLAIN)


def write_table(path: Path, batches: Batches) -> dict[str, Any]:
    """Write a table; returns its entry for the manifest. Memory grows with the number of different names only."""
    # The rows are read twice, because the dictionaries precede the first row in the file.
    seen: dict[str, dict[str, None]] = {name: {} for name in NAMES}
    for batch in batches():
        for name in NAMES:
            seen[name].update(dict.fromkeys(pc.unique(batch[name]).drop_null().to_pylist()))
    dictionaries = {name: pa.array(values, pa.utf8()) for name, values in seen.items()}
    slices = 0
    with path.open("wb") as file:
        with pa.ipc.new_file(file, SCHEMA) as writer:
            for batch in _regrouped(batches()):
                writer.write_batch(_numbered(batch, dictionaries))
                slices += len(batch)
        flush_to_disk(file)
    return {"file": path.name, "slices": slices, "sha256": sha256(path)}


def read_table(path: Path) -> pa.Table:
    """Open a table as a memory map. Raises `MedvarError` when it is missing or damaged, or has other columns."""
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        if table.schema.equals(SCHEMA.remove(_POSITION)):  # tables of versions without a position
            table = table.add_column(_POSITION, SCHEMA[_POSITION], pa.nulls(len(table), SCHEMA[_POSITION].type))
        if not table.schema.equals(SCHEMA):
            raise MedvarError(
                f"{path}: the columns are {_listed(table.schema)}, but {_listed(SCHEMA)} are expected. Prepare "
                "the data again."
            )
        table.validate(full=True)  # a wrong dictionary index would read outside the memory
        if empty := [column.name for column in SCHEMA if not column.nullable and table[column.name].null_count]:
            raise ValueError(f"{', '.join(empty)} must not be empty")
    except (OSError, pa.ArrowException, ValueError) as error:
        raise MedvarError(f"{path} is missing or damaged ({error}). Prepare the data again.") from error
    return table.unify_dictionaries()


def numbers(table: pa.Table, column: str) -> NDArray[np.int32]:
    """A column of integers as an array; for names, their indices in `names`, or -1 for a missing name."""
    values = table[column]
    if column in NAMES:
        values = pa.chunked_array([pc.fill_null(chunk.indices, -1) for chunk in values.chunks], pa.int32())
    return values.to_numpy()  # type: ignore[no-any-return]


def names(table: pa.Table, column: str) -> list[str]:
    """The distinct names of a column."""
    chunks = table[column].chunks
    return chunks[0].dictionary.to_pylist() if chunks else []


def fingerprints(table: pa.Table) -> NDArray[np.uint8]:
    """The fingerprints of all slices, (N, bytes)."""
    width = BITS // 8
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype=np.uint8).reshape(-1, width)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in table["fingerprint"].chunks
    ]
    return np.concatenate(parts) if parts else np.empty((0, width), dtype=np.uint8)


def plain_batches(table: pa.Table, first_shard: int = 0) -> Iterator[pa.RecordBatch]:
    """The rows of a table for `write_table`, with shards numbered from ``first_shard``."""
    for batch in table.to_batches():
        plain = batch.cast(PLAIN)
        shards = pc.add(plain["shard"], pa.scalar(first_shard, pa.int32()))
        yield plain.set_column(PLAIN.get_field_index("shard"), PLAIN.field("shard"), shards)


def _regrouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `BATCH_ROWS`."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) >= BATCH_ROWS:
            table = pa.Table.from_batches(held, PLAIN)
            yield from table.slice(0, BATCH_ROWS).combine_chunks().to_batches()
            held = table.slice(BATCH_ROWS).to_batches()
    if held:
        yield from pa.Table.from_batches(held, PLAIN).combine_chunks().to_batches()


def _numbered(batch: pa.RecordBatch, dictionaries: dict[str, pa.Array]) -> pa.RecordBatch:
    columns = {name: batch[name] for name in SCHEMA.names}
    for name, dictionary in dictionaries.items():
        columns[name] = pa.DictionaryArray.from_arrays(pc.index_in(batch[name], dictionary), dictionary)
    return pa.record_batch(columns, schema=SCHEMA)


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} ({column.type})" for column in schema)
