"""What is done for one request, and how many requests are worked on at a time."""

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
    """One request's work: what memory it has, when it must be done, and whether anybody still waits for it."""

    def __init__(self, seconds: float, share: Share) -> None:
        """``seconds`` from now are granted."""
        self.seconds = seconds
        self.share = share
        self._until = time.monotonic() + seconds
        self._left = False

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self._left = True

    def check(self) -> None:
        """Raises `Refused` when it is late, or nobody waits for it."""
        if self._left:
            raise Refused(499, "The client has left.")
        if time.monotonic() > self._until:
            raise Refused(
                504,
                f"This took longer than the {self.seconds:g} s that the server allows, its waiting included. Ask for "
                "fewer images at a time, or start the server with more --seconds.",
            )


class Jobs:
    """Runs the work of jobs in threads of their own, which wait for their turn at the networks."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.waiting + 1  # one of them runs a network
        self._threads = CapacityLimiter(self._most)

    async def run(self, work: Callable[[], Result], job: Job, *, begun: bool = False) -> Result:
        """The result of ``work``, a part of ``job``. When the client leaves, it stops before its next scale.

        A job that has ``begun`` is not sent away when many wait: what was done for it would be lost.
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
