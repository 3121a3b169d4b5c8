"""`PrefixCache`: prefix states kept by their content. A mere optimisation: dropping it changes no image."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any, NamedTuple

from medvar_engine.backends.base import PrefixState


class Key(NamedTuple):
    """All that one row of a prefix state follows from."""

    network: str  # the weights, and what runs them: keys and values of one backend mean nothing to another
    label: tuple[int, ...]
    depth: int
    tokens: bytes


Row = tuple[PrefixState, int]


class PrefixCache:
    """Rows of prefix states. Those used longest ago are dropped when all together take more than ``limit`` bytes.

    The newest state stays whatever its size, for the next scale is about to ask for it: a batch too large for the
    limit would otherwise compute all its coarser scales again at every scale.

    A kept row keeps the arrays of its whole batch alive, which longer prefixes and other rows may share. So it is
    arrays that are counted, in full and each once: what `nbytes` says is what is held.
    """

    def __init__(self, limit: int = 512 * 2**20) -> None:
        self.limit = limit
        self.nbytes = 0
        self._rows: OrderedDict[Key, Row] = OrderedDict()
        self._states: Counter[int] = Counter()  # id of a state → rows of it that are kept
        self._chunks: Counter[int] = Counter()  # id of an array → kept states that hold it

    def __len__(self) -> int:
        """Rows that are kept."""
        return len(self._rows)

    def get(self, keys: list[Key]) -> list[Row | None]:
        """The row of each key; None for one that is not there."""
        for key in keys:
            if key in self._rows:
                self._rows.move_to_end(key)
        return [self._rows.get(key) for key in keys]

    def put(self, keys: list[Key], state: PrefixState) -> None:
        """Keep every row of ``state``; ``keys`` name its rows."""
        for row, key in enumerate(keys):
            self._forget(key)
            self._rows[key] = (state, row)
            self._hold(state)
        while self.nbytes > self.limit and self._rows[oldest := next(iter(self._rows))][0] is not state:
            self._forget(oldest)

    def clear(self) -> None:
        """Drop everything."""
        for key in list(self._rows):
            self._forget(key)

    def _hold(self, state: PrefixState) -> None:
        self._states[id(state)] += 1
        if self._states[id(state)] == 1:
            for chunk in state.chunks:
                self.nbytes += _added(self._chunks, chunk)

    def _forget(self, key: Key) -> None:
        if (row := self._rows.pop(key, None)) is None:
            return
        state = row[0]
        self._states[id(state)] -= 1
        if not self._states[id(state)]:
            del self._states[id(state)]
            for chunk in state.chunks:
                self.nbytes -= _taken(self._chunks, chunk)


def _added(chunks: Counter[int], chunk: Any) -> int:
    """Bytes that one more state with ``chunk`` adds: none when another one holds it already."""
    chunks[id(chunk)] += 1
    return int(chunk.nbytes) if chunks[id(chunk)] == 1 else 0


def _taken(chunks: Counter[int], chunk: Any) -> int:
    """Bytes that one state less with ``chunk`` frees: none while another one holds it."""
    chunks[id(chunk)] -= 1
    if chunks[id(chunk)]:
        return 0
    del chunks[id(chunk)]
    return int(chunk.nbytes)
