"""Keys and values in the memory of the device that computed them, so that prefixes are never copied to the host."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import numpy as np

from medvar_engine.backends.key_value_graphs import average_graph, gather_graph, join_graph
from medvar_engine.backends.onnx_sessions import Sessions
from medvar_engine.types import FloatArray


@dataclass(frozen=True, eq=False, slots=True)
class DeviceKeysValues:
    """Keys and values ``(depth, 2, B, heads, L, d)`` in the device's memory. Immutable, so that prefixes share them."""

    value: Any  # OrtValue, float32

    @property
    def nbytes(self) -> int:
        """Size in bytes on the device."""
        return 4 * prod(self.value.shape())


class DeviceMemory:
    """`KeyValueMemory` of a device: chunks are `DeviceKeysValues`, and small graphs do what numpy does on the CPU.

    All rows of a batch pass through the networks together, so a chunk has one part.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def run(self, graph: str, feeds: dict[str, Any]) -> Sequence[Any]:
        """See `KeyValueMemory`. Logits are copied to the host, where tokens are drawn."""
        return self._sessions.run_bound(graph, feeds, kept={1})

    def chunk(self, parts: Sequence[Any]) -> DeviceKeysValues:
        """See `KeyValueMemory`."""
        (value,) = parts
        return DeviceKeysValues(value)

    def join(self, chunks: Sequence[DeviceKeysValues], rows: slice) -> Any:
        """See `KeyValueMemory`; ``rows`` must be all rows."""
        if len(chunks) == 1:
            return chunks[0].value
        feeds = {f"scale_{i}": chunk.value for i, chunk in enumerate(chunks)}
        return self._moved(f"join of {len(chunks)}", join_graph(len(chunks)), feeds, kept={0})

    def gather(self, rows: Sequence[tuple[DeviceKeysValues, int]]) -> DeviceKeysValues:
        """See `KeyValueMemory`. Consecutive rows of one chunk are gathered together."""
        runs = [list(run) for _, run in groupby(rows, key=lambda own: id(own[0]))]
        feeds = {f"source_{i}": run[0][0].value for i, run in enumerate(runs)}
        feeds |= {f"rows_{i}": np.array([row for _, row in run], dtype=np.int64) for i, run in enumerate(runs)}
        return DeviceKeysValues(self._moved(f"gather of {len(runs)}", gather_graph(len(runs)), feeds, {0}))

    def average(self, chunk: DeviceKeysValues) -> FloatArray:
        """See `KeyValueMemory`. The device may add in another order than numpy, so the last digits may differ."""
        average: FloatArray = self._moved("average", average_graph(), {"scale": chunk.value})
        return average

    def _moved(self, name: str, graph: bytes, feeds: dict[str, Any], kept: Collection[int] = ()) -> Any:
        """Run a small graph and return its only output."""
        self._sessions.add(name, graph)
        return self._sessions.run_bound(name, feeds, kept)[0]
