"""Time limits for library calls that cannot be interrupted, because an untrusted graph may run forever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

LEAST_SECONDS = 20.0  # least time limit for running or loading a graph
_PACE = 1e9  # bytes of weights times positions per second, slow for any common processor
_LOAD_PACE = 1e7  # bytes of weights per second
_GRACE = 2.0  # seconds for a call to end after it was asked to stop

Result = TypeVar("Result")


def run_seconds(weights: int, places: int) -> float:
    """The time limit in seconds for a graph with ``weights`` bytes of weights at ``places`` tokens or pixels."""
    return LEAST_SECONDS + weights * places / _PACE


def load_seconds(weights: int) -> float:
    """The time limit in seconds for loading a graph with ``weights`` bytes of weights."""
    return LEAST_SECONDS + weights / _LOAD_PACE


class _Worker(threading.Thread):
    """A thread that runs one call after the other. It is a daemon, so it does not keep the process alive."""

    def __init__(self) -> None:
        super().__init__(name="medvar-limited", daemon=True)
        self.calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while (call := self.calls.get()) is not None:
            call()
            del call  # so that only the caller holds the result


_idle: list[_Worker] = []


def within(seconds: float, call: Callable[[], Result], stop: Callable[[], None] | None = None) -> Result:
    """The result of ``call``, or its exception; it runs in a separate thread.

    After ``seconds``, or when waiting is interrupted, ``stop`` asks the call to end. A call that does not end then is
    abandoned: its thread runs until the call or the process ends.

    Raises:
        TimeoutError: when the time limit is exceeded.
    """
    done = threading.Event()
    outcome: dict[str, Any] = {}

    def kept() -> None:
        try:
            outcome["result"] = call()
        except BaseException as error:  # handled by the caller
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
