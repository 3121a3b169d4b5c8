"""Whose turn it is at the networks, and who shares it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

pytest.importorskip("fastapi")

from medvar_engine.errors import MedvarError
from medvar_engine.serve.jobs import Job
from medvar_engine.serve.memory import Memory
from medvar_engine.serve.turns import Turns

Asked = Sequence[int]


def job(seconds: float = 60) -> Job:
    return Job(seconds, Memory(1).share("me"))


class Network:
    """Notes what it is asked for together, and doubles it."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, list[int]]] = []

    def run(self, scale: int, asked: Asked) -> list[int]:
        self.runs.append((scale, list(asked)))
        if len(asked) > 1 and -1 in asked:
            raise MedvarError("Too much memory for all of them.")
        if list(asked) == [-2]:
            raise MedvarError("This one is wrong.")
        return [2 * number for number in asked]


@contextmanager
def all_waiting(turns: Turns) -> Iterator[Callable[..., Future[int]]]:
    """`ask(run, scale, number, size=1, who=…)`: what is asked within waits, in this order, until the end."""
    go_on, pool = threading.Event(), ThreadPoolExecutor(16)

    def busy(_: int, asked: Asked) -> Asked:
        assert go_on.wait(20)
        return asked

    def ask(run: Callable[[int, Asked], Sequence[int]], scale: int, number: int, size: int = 1, who: Job | None = None):  # type: ignore[no-untyped-def]
        there = len(turns._waiting)
        future = pool.submit(turns.ask, run, scale, number, size, who or job())
        while len(turns._waiting) == there:
            time.sleep(0.001)
        return future

    holding = pool.submit(turns.ask, busy, 0, 0, 1, job())
    while not turns._busy:
        time.sleep(0.001)
    try:
        yield ask
    finally:
        go_on.set()
        holding.result(20)
        pool.shutdown()


def test_who_waits_for_the_same_shares_a_turn_in_the_order_of_asking() -> None:
    """Clients of a GPU would wait for each other though it could serve them together, or some never have a turn."""
    turns, one, two = Turns(4), Network(), Network()
    with all_waiting(turns) as ask:
        asked = [
            ask(one.run, 3, 1),
            ask(one.run, 4, 2),  # another scale
            ask(two.run, 3, 3),  # another network
            ask(one.run, 3, 4, size=2),
            ask(one.run, 3, 5, size=2),  # would make five
            ask(one.run, 3, 6),
        ]
    assert [future.result() for future in asked] == [2, 4, 6, 8, 10, 12]
    assert one.runs == [(3, [1, 4, 6]), (4, [2]), (3, [5])]
    assert two.runs == [(3, [3])]


def test_what_is_larger_than_may_be_joined_goes_alone() -> None:
    """A batch larger than the bound would wait for ever."""
    turns, network = Turns(1), Network()
    with all_waiting(turns) as ask:
        asked = [ask(network.run, 0, number, size=5) for number in (1, 2)]
    assert [future.result() for future in asked] == [2, 4]
    assert network.runs == [(0, [1]), (0, [2])]


@pytest.mark.parametrize("number", [-1, -2])
def test_the_mistake_of_one_is_not_the_others(number: int) -> None:
    """A client's request would fail because of what a stranger asked beside it, or because both took the memory."""
    turns, network = Turns(16), Network()
    with all_waiting(turns) as ask:
        asked = [ask(network.run, 0, own) for own in (-1, number, 7)]
    assert (asked[0].result(), asked[2].result()) == (-2, 14)
    if number == -2:
        with pytest.raises(MedvarError, match="This one is wrong"):
            asked[1].result()


def test_who_is_late_or_has_left_costs_no_turn() -> None:
    """The networks would work for nobody."""
    turns, network, gone = Turns(16), Network(), job()
    with all_waiting(turns) as ask:
        late, left = ask(network.run, 0, 1, who=job(0)), ask(network.run, 0, 2, who=gone)
        fine = ask(network.run, 0, 3)
        gone.leave()
    with pytest.raises(MedvarError, match="took longer than"):
        late.result()
    with pytest.raises(MedvarError, match="has left"):
        left.result()
    assert fine.result() == 6
    assert network.runs == [(0, [3])]
