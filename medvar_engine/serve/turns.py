"""`Turns`: one run of the networks at a time, in the order of asking, for all who wait for the same network and scale.

The networks use all cores, or the whole GPU, already: two at once would only be in each other's way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from medvar_engine.serve.jobs import Job

Asked = TypeVar("Asked")
Given = TypeVar("Given")
Run = Callable[[int, Sequence[Asked]], Sequence[Given]]
"""A network at a scale, for several who ask: what each gets, in their order. Equal ones may share a turn."""


@dataclass(eq=False, slots=True)
class _Call:
    """What one job waits for."""

    run: Run[Any, Any]
    scale: int
    asked: Any
    size: int
    job: Job
    given: Any = None
    error: BaseException | None = None
    done: bool = False

    def is_like(self, other: _Call) -> bool:
        return self.run == other.run and self.scale == other.scale

    def answer(self, given: Any = None, error: BaseException | None = None) -> None:
        self.given, self.error, self.done = given, error, True


class Turns:
    """Whose turn it is. Whoever has waited longest runs the network, and runs it for those who wait for the same.

    There is no thread for that: the networks run in the thread of the one whose turn it is, so that a single client
    pays for no change of threads. ``most`` is the size up to which calls go through a network together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []
        self._busy = False

    def ask(self, run: Run[Asked, Given], scale: int, asked: Asked, size: int, job: Job) -> Given:
        """What ``run`` gives for ``asked``, which is of this ``size``, when its turn has come.

        Raises `Refused` when by then the job is late, or nobody waits for it any more.
        """
        call = _Call(run, scale, asked, size, job)
        with self._changed:
            self._waiting.append(call)
            self._changed.wait_for(lambda: call.done or (not self._busy and self._waiting[0] is call))
            together = [] if call.done else self._taken()
        if together:
            _answer(together)
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        if call.error:
            raise call.error
        return call.given  # type: ignore[no-any-return]

    def _taken(self) -> list[_Call]:
        """The first call and those that are like it, as far as they are not too large together; the turn is theirs."""
        self._busy = True
        first = self._waiting[0]
        taken, size = [first], first.size
        for call in self._waiting[1:]:
            if call.is_like(first) and size + call.size <= self._most:
                taken.append(call)
                size += call.size
        self._waiting = [call for call in self._waiting if call not in taken]
        return taken


def _answer(together: list[_Call]) -> None:
    """Run the network once for all calls; where that fails, for each alone, so that each has only its own mistakes."""
    calls = []
    for call in together:
        try:
            call.job.check()
            calls.append(call)
        except BaseException as error:
            call.answer(error=error)
    try:
        if calls:
            given = calls[0].run(calls[0].scale, [call.asked for call in calls])
            for call, own in zip(calls, given, strict=True):
                call.answer(own)
    except BaseException as error:
        if len(calls) == 1:
            calls[0].answer(error=error)
        else:
            for call in calls:
                _answer([call])
