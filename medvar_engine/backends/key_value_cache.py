"""Keys and values of one scale, as the CPU's networks gave them, and what is done with them there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medvar_engine.backends.check_outputs import check_outputs, odd_output
from medvar_engine.backends.onnx_sessions import Sessions
from medvar_engine.types import FloatArray


class Memory(Protocol):
    """Where keys and values lie. A *chunk* is those of one scale; what it is, only its memory knows."""

    def run(self, graph: str, feeds: dict[str, Any]) -> tuple[FloatArray, Any]:
        """A transformer's graph, for some rows of a batch: logits, and their part of a chunk."""

    def chunk(self, parts: Sequence[Any]) -> Any:
        """The chunk whose parts `run` gave, one below the other."""

    def join(self, chunks: Sequence[Any], rows: slice) -> Any:
        """Some rows of all scales so far, one or more: what `run` takes for ``past``."""

    def gather(self, rows: Sequence[tuple[Any, int]]) -> Any:
        """A chunk of one row of each of these."""

    def average(self, chunk: Any) -> FloatArray:
        """The mean over tokens: ``(depth, 2, B, heads, d)``."""


@dataclass(frozen=True, eq=False, slots=True)
class KeysValues:
    """``(depth, 2, B, heads, L, d)``, its rows in parts. Never changed, so that prefixes can share it.

    A batch goes through the networks in blocks of rows. To join them would copy every scale once more, which of 16
    images took an eighth of the time; and of the finest scale, the largest, nobody asks.
    """

    parts: tuple[FloatArray, ...]  # (depth, 2, rows, heads, L, d) each

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    def rows(self, first: int, end: int) -> FloatArray:
        """Rows ``first…end-1``; a view where they lie in one part."""
        found, begin = [], 0
        for part in self.parts:
            if first < begin + part.shape[2] and begin < end:
                found.append(part[:, :, max(0, first - begin) : end - begin])
            begin += part.shape[2]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=2)


class HostMemory:
    """`Memory` of the CPU: chunks are `KeysValues`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def run(self, graph: str, feeds: dict[str, Any]) -> tuple[FloatArray, FloatArray]:
        """See `Memory`."""
        logits, present = check_outputs(graph, self._sessions.run(graph, feeds), 2)
        wanted = (*feeds["past"].shape[:4], feeds["features"].shape[1], *feeds["past"].shape[5:])
        if present.shape != wanted:
            raise odd_output(graph, f"keys and values {present.shape} in place of {wanted}")
        return logits, present

    def chunk(self, parts: Sequence[FloatArray]) -> KeysValues:
        """See `Memory`."""
        return KeysValues(tuple(parts))

    def join(self, chunks: Sequence[KeysValues], rows: slice) -> FloatArray:
        """See `Memory`."""
        return np.concatenate([chunk.rows(rows.start, rows.stop) for chunk in chunks], axis=4)

    def gather(self, rows: Sequence[tuple[KeysValues, int]]) -> KeysValues:
        """See `Memory`."""
        return KeysValues((np.concatenate([own.rows(row, row + 1) for own, row in rows], axis=2),))

    def average(self, chunk: KeysValues) -> FloatArray:
        """See `Memory`."""
        return np.concatenate([part.mean(axis=4) for part in chunk.parts], axis=2)
