"""A limit on how long a call into a library may take that cannot be interrupted: a stranger's graph may never end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

LEAST_SECONDS = 20.0  # that any call of a graph may take, and that any graph may take to load
_PACE = 1e9  # bytes of weights, each applied at one place of an image, a second: slow for any processor in use
_LOAD_PACE = 1e7  # bytes a second
_GRACE = 2.0  # seconds in which a call that was told to stop may end

Result = TypeVar("Result")


def run_seconds(weights: int, places: int) -> float:
    """How long a graph with so many bytes of weights may take for so many tokens, or pixels."""
    return LEAST_SECONDS + weights * places / _PACE


def load_seconds(weights: int) -> float:
    """How long such a graph may take to load."""
    return LEAST_SECONDS + weights / _LOAD_PACE


class _Worker(threading.Thread):
    """A thread that makes one call after the other. As a daemon it cannot keep the process from ending."""

    def __init__(self) -> None:
        super().__init__(name="medvar-limited", daemon=True)
        self.calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while (call := self.calls.get()) is not None:
            call()
            del call  # the result is the caller's alone


_idle: list[_Worker] = []


def within(seconds: float, call: Callable[[], Result], stop: Callable[[], None] | None = None) -> Result:
    """What ``call`` gives or raises, made in a thread of its own.

    After ``seconds``, or when the waiting is interrupted, ``stop`` asks it to end. A call that does not end then is
    left to itself: it holds a thread until it ends, or the process does.

    Raises:
        TimeoutError: when the time is over.
    """
    done = threading.Event()
    outcome: dict[str, Any] = {}

    def kept() -> None:
        try:
            outcome["result"] = call()
        except BaseException as error:  # the caller's to handle
            outcome["error"] = error
        finally:
            done.set()

    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.calls.put(kept)
    try:
        ended = done.wait(seconds)
        if not ended and stop is not None:
            stop()
            done.wait(_GRACE)
    except BaseException:
        if stop is not None:
            with suppress(Exception):
                stop()
        worker.calls.put(None)
        raise
    if not done.is_set():
        worker.calls.put(None)
    else:
        _idle.append(worker)
    if not ended:
        raise TimeoutError(f"it took longer than {seconds:.0f} s")
    if "error" in outcome:
        raise outcome.pop("error")
    result: Result = outcome.pop("result")
    return result
