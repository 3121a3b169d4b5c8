"""`PrefixCache`: prefix states kept by their content. A mere optimisation: dropping it changes no image."""

from __future__ import annotations

from collections import OrderedDict

from medvar_engine.backends.base import PrefixState

Key = tuple[tuple[int, ...], int, bytes]  # label, depth, tokens that the state was computed from


class PrefixCache:
    """Rows of prefix states, the least recently used dropped beyond ``limit`` bytes."""

    def __init__(self, limit: int = 512 * 2**20) -> None:
        self.limit = limit
        self._rows: OrderedDict[Key, tuple[PrefixState, int]] = OrderedDict()
        self._bytes = 0

    def get(self, keys: list[Key]) -> list[tuple[PrefixState, int]] | None:
        """The rows of all ``keys``, or None when one is missing."""
        if not all(key in self._rows for key in keys):
            return None
        for key in keys:
            self._rows.move_to_end(key)
        return [self._rows[key] for key in keys]

    def put(self, keys: list[Key], state: PrefixState) -> None:
        """Keep every row of ``state``; ``keys`` name its rows."""
        for row, key in enumerate(keys):
            self._forget(key)
            self._rows[key] = (state, row)
            self._bytes += _share(state)
        while self._bytes > self.limit and self._rows:
            self._forget(next(iter(self._rows)))

    def clear(self) -> None:
        """Drop everything."""
        self._rows.clear()
        self._bytes = 0

    def _forget(self, key: Key) -> None:
        found = self._rows.pop(key, None)
        if found is not None:
            self._bytes -= _share(found[0])


def _share(state: PrefixState) -> int:
    """Bytes that one row adds: its newest scale only, since prefixes share their coarser scales."""
    return state.nbytes // max(1, len(state.labels))
