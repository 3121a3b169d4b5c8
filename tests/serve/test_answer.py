"""Answers, and clients that do not take them."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

from medvar_engine.serve.answer import Answer
from medvar_engine.serve.memory_budget import MemoryBudget

SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}}


async def never(*_: Any) -> Any:
    """A client that neither takes anything nor leaves."""
    await asyncio.Event().wait()


def test_clients_that_do_not_receive_are_disconnected() -> None:
    """Clients that ask, and never read what comes, would keep the server's memory for ever."""
    memory, held = MemoryBudget(100), ExitStack()
    held.enter_context(memory.share("deaf")).take(100)
    asyncio.run(Answer.of(bytes(100), held, 0.05)(SCOPE, never, never))
    assert memory.held == 0


def test_an_answer_is_given_in_pieces() -> None:
    """The connection would hold all of an answer until a slow client has taken it, and nobody counts that."""
    memory, held, content = MemoryBudget(2**30), ExitStack(), bytes(range(256)) * 2**13
    held.enter_context(memory.share("slow")).take(len(content))
    taken: list[bytes] = []

    async def send(message: Any) -> None:
        assert memory.held == len(content)  # until its end
        taken.append(message.get("body", b""))

    asyncio.run(Answer.of(content, held, 60)(SCOPE, never, send))
    assert b"".join(taken) == content
    assert max(map(len, taken)) < len(content) / 4
    assert memory.held == 0
