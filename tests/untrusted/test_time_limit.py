"""A call that does not end is left, whatever it does; all others are as if they were made directly."""

from __future__ import annotations

import threading
import time

import pytest

from medvar_engine.untrusted.time_limit import within


def test_results_and_errors_come_through() -> None:
    assert within(10, lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 // 0)


def test_threads_are_used_again() -> None:
    """A graph runs tens of times an image: threads would pile up."""
    names = {within(10, lambda: threading.current_thread().name and threading.get_ident()) for _ in range(20)}
    assert len(names) == 1


def test_a_call_that_can_be_stopped_is_stopped() -> None:
    stopped = threading.Event()
    with pytest.raises(TimeoutError, match="longer than 0 s"):
        within(0.05, lambda: stopped.wait(30), stopped.set)
    assert stopped.is_set()


def test_a_call_that_cannot_be_stopped_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvar_engine.untrusted.time_limit._GRACE", 0.05)
    end, begun = threading.Event(), time.monotonic()
    with pytest.raises(TimeoutError):
        within(0.05, lambda: end.wait(30), lambda: None)
    assert time.monotonic() - begun < 10
    assert within(10, lambda: "the next one") == "the next one"
    end.set()
