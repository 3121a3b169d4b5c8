"""One backend for many jobs at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.conditions import Condition
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.prefix_cache import PrefixCache
from medvar_engine.request import Request, Sampling
from medvar_engine.serve.jobs import Job
from medvar_engine.serve.memory_budget import MemoryBudget
from medvar_engine.serve.networks import JobBackend, Networks

CHEST, BRAIN = Condition("CT", "chest"), Condition("MR", "brain", "axial")
ASKED = [
    [Request(CHEST, 1, Sampling(guidance=2.0))],
    [Request(BRAIN, 2), Request(CHEST, 3, Sampling(guidance=0.0, temperature=0.7))],
    [Request(BRAIN, 4, Sampling(top_k=5))],
    [Request(CHEST, 1, Sampling(guidance=2.0))],  # the same as the first
]


def job(client: str = "me") -> Job:
    return Job(60, MemoryBudget(1).share(client))


def generator(networks: Networks) -> Generator:
    return Generator(JobBackend(networks, job()), PrefixCache())


@pytest.mark.parametrize("cache", [2**30, 1])
def test_jobs_at_the_same_time_get_what_they_get_alone(cache: int, tiny_onnx: OnnxBackend) -> None:
    """An image would depend on who else used the server at that moment, and could not be made again."""
    networks = Networks(tiny_onnx, PrefixCache(cache))

    def made(requests: list[Request]) -> Generation:
        own = generator(networks)
        return own.finish(own.start(requests))

    with ThreadPoolExecutor(len(ASKED)) as pool:
        together = list(pool.map(made, ASKED))
    for requests, own in zip(ASKED, together, strict=True):
        alone = Generator(tiny_onnx)
        expected = alone.finish(alone.start(requests))
        assert own.pyramid == expected.pyramid
        for kind in ("entropy", "latents"):
            for mine, theirs in zip(getattr(own, kind), getattr(expected, kind), strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_long_jobs_let_other_jobs_run(
    tiny_onnx: OnnxBackend, monkeypatch: pytest.MonkeyPatch, edited: Callable[[int], Any]
) -> None:
    """Whoever sends a session of hundreds of edits would hold the server for minutes."""
    trace, networks = edited(6), Networks(tiny_onnx, PrefixCache())
    order: list[str] = []
    decode = tiny_onnx.decode
    others = ThreadPoolExecutor(1)

    def noted(latent: Any, *, preview: bool = False) -> Any:
        order.append("edit")
        if len(order) == 2:  # another one comes while this turn lasts
            others.submit(other)
            while len(networks.turn._tickets) < 2:
                time.sleep(0.001)
        return decode(latent, preview=preview)

    def other() -> None:
        with networks.turn.held(job("other")):
            order.append("other")

    monkeypatch.setattr(tiny_onnx, "decode", noted)
    own = generator(networks)
    image = own.image(own.restore([trace]))
    others.shutdown()
    assert order == ["edit", "edit", "other", *["edit"] * 5]
    np.testing.assert_array_equal(image, Generator(tiny_onnx).image(Generator(tiny_onnx).restore([trace])))
