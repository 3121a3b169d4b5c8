"""`MemoryBudget`: a limit on the memory for the requests and responses of all clients."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

from medvar_engine.serve.limits import Refused


class MemoryBudget:
    """Counts bytes. One client, identified by its address, can use at most half of the limit.

    A larger request is accepted only when no other memory is in use; otherwise it could never be served.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str] = Counter()  # client → bytes
        self._lock = threading.Lock()

    def share(self, client: str) -> Share:
        """The account for a request of ``client``."""
        return Share(self, client)

    @property
    def held(self) -> int:
        """The bytes in use for all clients."""
        with self._lock:
            return self._held.total()

    def _take(self, share: Share, count: int) -> None:
        with self._lock:
            mine, total = self._held[share.client], self._held.total()
            alone = mine == share.held, total == share.held
            if (mine + count > self._most // 2 and not alone[0]) or (total + count > self._most and not alone[1]):
                raise Refused(
                    503,
                    "The server's memory is used by other requests. Try again in a moment.",
                    {"Retry-After": "1"},
                )
            self._held[share.client] += count
            share.held += count

    def _give_back(self, share: Share) -> None:
        with self._lock:
            self._held[share.client] -= share.held
            share.held = 0
            if not self._held[share.client]:
                del self._held[share.client]


class Share:
    """The memory account of one request; as a context manager, it is released at the end."""

    def __init__(self, memory: MemoryBudget, client: str) -> None:
        self.client, self.held = client, 0
        self._memory = memory

    def take(self, count: int) -> None:
        """Reserve ``count`` more bytes. Raises `Refused` when the limit would be exceeded."""
        self._memory._take(self, count)

    def let_go(self) -> None:
        """Release all bytes."""
        self._memory._give_back(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.let_go()
