"""`Job`: the work for one request; `Jobs`: the limit of jobs at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from medvar_engine.serve.limits import Limits, Refused
from medvar_engine.serve.memory_budget import Share

Result = TypeVar("Result")


class Job:
    """The work for one request, with its memory, its time limit, and whether its client is still connected."""

    def __init__(self, seconds: float, share: Share) -> None:
        """The job may take ``seconds`` from now."""
        self.seconds = seconds
        self.share = share
        self._until = time.monotonic() + seconds
        self._left = False

    def leave(self) -> None:
        """Record that the client has disconnected."""
        self._left = True

    def check(self) -> None:
        """Raises `Refused` when the time limit is exceeded or the client has disconnected."""
        if self._left:
            raise Refused(499, "The client has disconnected.")
        if time.monotonic() > self._until:
            raise Refused(
                504,
                f"This took longer than the {self.seconds:g} s that the server allows, including waiting. Request "
                "fewer images at a time, or start the server with more --seconds.",
            )


class Jobs:
    """Runs jobs in separate threads, which wait for their turn to use the networks."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.waiting + 1  # waiting jobs and the running one
        self._threads = CapacityLimiter(self._most)

    async def run(self, work: Callable[[], Result], job: Job, *, begun: bool = False) -> Result:
        """The result of ``work``, a part of ``job``. When the client disconnects, the work stops before its next scale.

        A job that has ``begun`` is not refused when many jobs wait, because its results would be lost.
        """
        there = self._threads.borrowed_tokens + self._threads.statistics().tasks_waiting
        if there >= self._most and not begun:
            text = f"{there - 1} jobs wait already. Try again in a moment."
            raise Refused(503, text, {"Retry-After": "1"})
        try:
            return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
        except asyncio.CancelledError:
            job.leave()
            raise
