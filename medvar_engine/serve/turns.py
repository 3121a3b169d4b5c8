"""`Turns`: one job at a time, in the order of asking. The networks use all cores, or the whole GPU, already."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from medvar_engine.serve.limits import Limits, Refused

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a job must be done."""

    until: float  # of time.monotonic
    seconds: float  # that were granted

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(time.monotonic() + seconds, seconds)

    def check(self) -> None:
        """Raises `Refused` when it has passed."""
        if time.monotonic() > self.until:
            raise Refused(
                504,
                f"This took longer than the {self.seconds:g} s that the server allows, its waiting included. Ask for "
                "fewer images at a time, or start the server with more --seconds.",
            )


class Turns:
    """Whose turn it is. A job that asks for many scales asks for a turn each, so that others come in between."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turn = asyncio.Semaphore(1)  # the first that asked is the first that goes
        self._waiting = 0

    async def run(self, work: Callable[[], Result], deadline: Deadline, *, begun: bool = False) -> Result:
        """The result of ``work``, which runs in a thread when its turn has come.

        A job that has ``begun`` is not sent away when many wait: what was done for it would be lost.
        """
        if self._waiting >= self._limits.waiting and not begun:
            text = f"{self._waiting} jobs wait already. Try again in a moment."
            raise Refused(503, text, {"Retry-After": "1"})
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            deadline.check()
            return await run_in_threadpool(work)  # when the client leaves, the turn ends with the work, not before
        finally:
            self._turn.release()
