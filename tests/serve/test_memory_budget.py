"""How much of requests and answers is held at a time."""

from __future__ import annotations

import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.serve.memory_budget import MemoryBudget


def test_one_client_leaves_room_for_the_others() -> None:
    """Whoever sends most would shut out all others, or all together take the computer's memory."""
    memory = MemoryBudget(100)
    with memory.share("a") as first, memory.share("a") as second, memory.share("b") as other, memory.share("c") as last:
        first.take(30)
        second.take(20)
        for share in (first, second):
            with pytest.raises(MedvarError, match="Try again"):
                share.take(1)
        other.take(40)
        with pytest.raises(MedvarError, match="Try again"):
            last.take(11)
        last.take(10)
        assert memory.held == 100
    assert memory.held == 0


def test_what_is_given_back_can_be_taken_again() -> None:
    """A server would refuse everything after some days, for what it forgot to give back."""
    memory = MemoryBudget(100)
    for _ in range(9):
        with memory.share("a") as share, memory.share("a") as more:
            share.take(40)
            with pytest.raises(MedvarError):
                more.take(40)
    assert memory.held == 0


def test_a_request_above_the_limit_runs_alone() -> None:
    """A model whose answers are larger than the bound could not be served at all."""
    memory = MemoryBudget(100)
    with memory.share("a") as large:
        large.take(300)
        with memory.share("b") as small, pytest.raises(MedvarError, match="Try again"):
            small.take(1)
    with memory.share("b") as small:
        small.take(1)
