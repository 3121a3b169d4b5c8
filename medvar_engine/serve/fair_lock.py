"""`FairLock`: one job at a time, in the order of asking.

The networks use all cores, or the whole GPU, already: two at once would only be in each other's way.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from medvar_engine.serve.jobs import Job


class FairLock:
    """A lock that goes to whoever has waited longest; the standard library's may go to anybody."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: deque[object] = deque()  # the first one has the lock, the others wait

    @contextmanager
    def held(self, job: Job) -> Iterator[None]:
        """The lock, for ``job``.

        Raises `Refused` when by then the job is late, or nobody waits for it any more.
        """
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
            self._changed.wait_for(lambda: self._tickets[0] is ticket)
        try:
            job.check()
            yield
        finally:
            with self._changed:
                self._tickets.popleft()
                self._changed.notify_all()
