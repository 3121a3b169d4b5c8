"""Keys and values of one scale in the host's memory, and the operations on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medvar_engine.backends.onnx_sessions import Sessions
from medvar_engine.types import FloatArray


class KeyValueMemory(Protocol):
    """A memory for keys and values. A *chunk* holds those of one scale; its type depends on the memory."""

    def run(self, graph: str, feeds: dict[str, Any]) -> Sequence[Any]:
        """Run a graph of the transformer for some rows of a batch; returns its outputs, unchecked.

        The first are the logits, the second one the rows' part of a chunk.
        """

    def chunk(self, parts: Sequence[Any]) -> Any:
        """Combine the parts that `run` returned, in the order of rows, to a chunk."""

    def join(self, chunks: Sequence[Any], rows: slice) -> Any:
        """Some rows of all scales so far (one or more), as `run` takes them for ``past``."""

    def gather(self, rows: Sequence[tuple[Any, int]]) -> Any:
        """A chunk of rows of other chunks, given as (chunk, row)."""

    def average(self, chunk: Any) -> FloatArray:
        """The mean of a chunk over tokens: ``(depth, 2, B, heads, d)``."""


@dataclass(frozen=True, eq=False, slots=True)
class KeysValues:
    """Keys and values ``(depth, 2, B, heads, L, d)`` in several parts of rows. Immutable, so that prefixes share them.

    A batch passes through the networks in blocks of rows. Joining the blocks would copy every scale once more, which
    took an eighth of the time for 16 images, and those of the finest, largest scale are never needed.
    """

    parts: tuple[FloatArray, ...]  # (depth, 2, rows, heads, L, d) each

    @property
    def nbytes(self) -> int:
        """Size of all parts in bytes."""
        return sum(part.nbytes for part in self.parts)

    def rows(self, first: int, end: int) -> FloatArray:
        """Rows ``first…end-1``; a view if they lie in one part."""
        found, begin = [], 0
        for part in self.parts:
            if first < begin + part.shape[2] and begin < end:
                found.append(part[:, :, max(0, first - begin) : end - begin])
            begin += part.shape[2]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=2)


class HostMemory:
    """`KeyValueMemory` of the CPU: chunks are `KeysValues`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def run(self, graph: str, feeds: dict[str, Any]) -> Sequence[Any]:
        """See `KeyValueMemory`."""
        return self._sessions.run(graph, feeds)

    def chunk(self, parts: Sequence[FloatArray]) -> KeysValues:
        """See `KeyValueMemory`."""
        return KeysValues(tuple(parts))

    def join(self, chunks: Sequence[KeysValues], rows: slice) -> FloatArray:
        """See `KeyValueMemory`."""
        return np.concatenate([chunk.rows(rows.start, rows.stop) for chunk in chunks], axis=4)

    def gather(self, rows: Sequence[tuple[KeysValues, int]]) -> KeysValues:
        """See `KeyValueMemory`."""
        return KeysValues((np.concatenate([own.rows(row, row + 1) for own, row in rows], axis=2),))

    def average(self, chunk: KeysValues) -> FloatArray:
        """See `KeyValueMemory`."""
        return np.concatenate([part.mean(axis=4) for part in chunk.parts], axis=2)
