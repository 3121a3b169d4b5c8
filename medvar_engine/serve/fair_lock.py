"""`FairLock`: a lock for one job at a time, in the order of requests.

A network uses all cores or the whole GPU, so running two at once would only slow down both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from medvar_engine.serve.jobs import Job


class FairLock:
    """A lock that is given to the thread that has waited longest, unlike that of the standard library."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: deque[object] = deque()  # the first ticket holds the lock, the others wait

    @contextmanager
    def held(self, job: Job) -> Iterator[None]:
        """Hold the lock for ``job``.

        Raises `Refused` when the job has exceeded its time, or its client has disconnected.
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
