"""Whose turn it is at the networks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.serve.fair_lock import FairLock
from medvar_engine.serve.jobs import Job
from medvar_engine.serve.memory_budget import MemoryBudget


def job(seconds: float = 60) -> Job:
    return Job(seconds, MemoryBudget(1).share("me"))


@contextmanager
def all_waiting(lock: FairLock) -> Iterator[Callable[..., Future[None]]]:
    """`ask(work, who=…)`: whoever asks within waits, in this order, until the end."""
    pool = ThreadPoolExecutor(16)

    def run(work: Callable[[], None], who: Job) -> None:
        with lock.held(who):
            work()

    def ask(work: Callable[[], None], who: Job | None = None) -> Future[None]:
        there = len(lock._tickets)
        future = pool.submit(run, work, who or job())
        while len(lock._tickets) == there:
            time.sleep(0.001)
        return future

    with lock.held(job()):
        yield ask
    pool.shutdown()


def test_turns_follow_the_order_of_requests() -> None:
    """A client might never have its turn while others keep asking; or two networks would run at once."""
    lock, order, inside = FairLock(), list[int](), threading.Semaphore(1)

    def work(number: int) -> None:
        assert inside.acquire(blocking=False)
        order.append(number)
        time.sleep(0.002)
        inside.release()

    with all_waiting(lock) as ask:
        asked = [ask(lambda number=number: work(number)) for number in range(8)]
    for future in asked:
        future.result(20)
    assert order == list(range(8))


def test_errors_of_one_job_do_not_affect_others() -> None:
    """After one wrong request the server would answer nobody any more."""
    lock, done = FairLock(), threading.Event()

    def wrong() -> None:
        raise MedvarError("This one is wrong.")

    with all_waiting(lock) as ask:
        first, second = ask(wrong), ask(done.set)
    with pytest.raises(MedvarError, match="This one is wrong"):
        first.result(20)
    second.result(20)
    assert done.is_set()


def test_expired_and_disconnected_jobs_take_no_turn() -> None:
    """The networks would work for nobody."""
    lock, gone, ran = FairLock(), job(), list[str]()
    with all_waiting(lock) as ask:
        late, left = ask(lambda: ran.append("late"), job(0)), ask(lambda: ran.append("left"), gone)
        fine = ask(lambda: ran.append("fine"))
        gone.leave()
    with pytest.raises(MedvarError, match="took longer than"):
        late.result(20)
    with pytest.raises(MedvarError, match="has disconnected"):
        left.result(20)
    fine.result(20)
    assert ran == ["fine"]
