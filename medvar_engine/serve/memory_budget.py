"""`Memory`: how much of requests and answers is held at a time, for all clients together."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

from medvar_engine.serve.limits import Refused


class Memory:
    """Counts bytes. Of one client, by its address, at most half are held, so that the others always find room.

    What alone is larger than that is taken when nothing else is held, or no client could ever have it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str] = Counter()  # client → bytes
        self._lock = threading.Lock()

    def share(self, client: str) -> Share:
        """What will be held for a request of ``client``."""
        return Share(self, client)

    @property
    def held(self) -> int:
        """Bytes that are held for all clients."""
        with self._lock:
            return self._held.total()

    def _take(self, share: Share, count: int) -> None:
        with self._lock:
            mine, total = self._held[share.client], self._held.total()
            alone = mine == share.held, total == share.held
            if (mine + count > self._most // 2 and not alone[0]) or (total + count > self._most and not alone[1]):
                raise Refused(
                    503,
                    "The server holds as much of others' or of your other requests as it may. Try again in a moment.",
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
    """What is held for one request; as a context, until its end."""

    def __init__(self, memory: Memory, client: str) -> None:
        self.client, self.held = client, 0
        self._memory = memory

    def take(self, count: int) -> None:
        """Hold ``count`` bytes more. Raises `Refused` where they would be too many."""
        self._memory._take(self, count)

    def let_go(self) -> None:
        """Hold nothing any more."""
        self._memory._give_back(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.let_go()
