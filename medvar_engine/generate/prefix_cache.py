"""`PrefixCache`: prefix states stored under their content. Emptying it changes no image."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from medvar_engine.backends.base import PrefixState


class PrefixKey(NamedTuple):
    """Everything that determines one row of a prefix state."""

    network: str  # weights and backend: keys and values of one backend have no meaning for another
    label: tuple[int, ...]
    depth: int
    tokens: bytes


Row = tuple[PrefixState, int]


class PrefixCache:
    """Rows of prefix states. The least recently used are removed when all together take more than ``limit`` bytes.

    The newest state, or the newest states of a model and its guide, stay whatever their size, because the next scale
    needs them: otherwise a batch above the limit would compute all its coarser scales again at every scale.

    A stored row keeps the arrays of its whole batch in memory, which longer prefixes and other rows can share.
    Therefore arrays are counted, in full and each once: `nbytes` is the memory in use.
    """

    def __init__(self, limit: int = 512 * 2**20) -> None:
        self.limit = limit
        self.nbytes = 0
        self._rows: OrderedDict[PrefixKey, Row] = OrderedDict()
        self._states: Counter[int] = Counter()  # id of a state → number of its stored rows
        self._chunks: Counter[int] = Counter()  # id of an array → number of stored states that hold it

    def __len__(self) -> int:
        """Number of stored rows."""
        return len(self._rows)

    def get(self, keys: list[PrefixKey]) -> list[Row | None]:
        """The row of each key; None for a missing one."""
        for key in keys:
            if key in self._rows:
                self._rows.move_to_end(key)
        return [self._rows.get(key) for key in keys]

    def put(self, keys: list[PrefixKey], state: PrefixState) -> None:
        """Store every row of ``state`` under its key."""
        self.put_together([(keys, state)])

    def put_together(self, states: Sequence[tuple[list[PrefixKey], PrefixState]]) -> None:
        """Store several states that the next scale needs, those of a model and of its guide; see `put`."""
        for keys, state in states:
            for row, key in enumerate(keys):
                self._forget(key)
                self._rows[key] = (state, row)
                self._hold(state)
        newest = {id(state) for _, state in states}
        while self.nbytes > self.limit and id(self._rows[oldest := next(iter(self._rows))][0]) not in newest:
            self._forget(oldest)

    def clear(self) -> None:
        """Remove everything."""
        for key in list(self._rows):
            self._forget(key)

    def _hold(self, state: PrefixState) -> None:
        self._states[id(state)] += 1
        if self._states[id(state)] == 1:
            for chunk in state.chunks:
                self.nbytes += _added(self._chunks, chunk)

    def _forget(self, key: PrefixKey) -> None:
        if (row := self._rows.pop(key, None)) is None:
            return
        state = row[0]
        self._states[id(state)] -= 1
        if not self._states[id(state)]:
            del self._states[id(state)]
            for chunk in state.chunks:
                self.nbytes -= _taken(self._chunks, chunk)


def _added(chunks: Counter[int], chunk: Any) -> int:
    """Bytes that one more state with ``chunk`` adds: 0 if another state holds it already."""
    chunks[id(chunk)] += 1
    return int(chunk.nbytes) if chunks[id(chunk)] == 1 else 0


def _taken(chunks: Counter[int], chunk: Any) -> int:
    """Bytes that removing one state with ``chunk`` frees: 0 while another state holds it."""
    chunks[id(chunk)] -= 1
    if chunks[id(chunk)]:
        return 0
    del chunks[id(chunk)]
    return int(chunk.nbytes)
