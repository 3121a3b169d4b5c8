"""One backend for many jobs at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.conditions import Condition
from medvar_engine.generation import Generation
from medvar_engine.generator import Generator
from medvar_engine.prefix_cache import PrefixCache
from medvar_engine.request import Request
from medvar_engine.sampling import Sampling
from medvar_engine.serve.jobs import Job
from medvar_engine.serve.memory import Memory
from medvar_engine.serve.networks import JobBackend, Networks

CHEST, BRAIN = Condition("CT", "chest"), Condition("MR", "brain", "axial")
ASKED = [
    [Request(CHEST, 1, Sampling(guidance=2.0))],
    [Request(BRAIN, 2), Request(CHEST, 3, Sampling(guidance=0.0, temperature=0.7))],
    [Request(BRAIN, 4, Sampling(top_k=5))],
    [Request(CHEST, 1, Sampling(guidance=2.0))],  # the same as the first
]


def generator(networks: Networks) -> Generator:
    return Generator(JobBackend(networks, Job(60, Memory(1).share("me"))), PrefixCache())


@pytest.fixture
def rows(tiny_onnx: OnnxBackend, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Scale and rows of every step that is computed."""
    computed: list[tuple[int, int]] = []
    step = tiny_onnx.step

    def noted(state: Any, *more: Any) -> Any:
        computed.append((state.depth, len(state.labels)))
        return step(state, *more)

    monkeypatch.setattr(tiny_onnx, "step", noted)
    return computed


def in_step(networks: Networks, asked: Sequence[Sequence[Request]]) -> list[Generation]:
    """What several jobs get that always wait for the same scale: each scale begins when all of them are there."""
    scales = len(networks.backend.info.schedule)
    made = [(own := generator(networks), own.start(requests)) for requests in asked]
    with ThreadPoolExecutor(len(asked) + 1) as pool:
        for _ in range(scales):
            everyone = threading.Event()

            def held(_: int, nothing: Sequence[None], everyone: threading.Event = everyone) -> Sequence[None]:
                assert everyone.wait(20)
                return nothing

            holding = pool.submit(networks.ask, held, 0, None, 1, Job(60, Memory(1).share("me")))
            while not networks._turns._busy:
                time.sleep(0.001)
            steps = [pool.submit(own.step, generation) for own, generation in made]
            while len(networks._turns._waiting) < len(asked):
                time.sleep(0.001)
            everyone.set()
            holding.result(20)
            made = [(own, step.result(20)) for (own, _), step in zip(made, steps, strict=True)]
    return [generation for _, generation in made]


def assert_same(one: Generation, other: Generation) -> None:
    assert one.pyramid == other.pyramid
    for kind in ("entropy", "latents"):
        for mine, theirs in zip(getattr(one, kind), getattr(other, kind), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("cache", [2**30, 1])
def test_jobs_in_one_batch_get_what_they_get_alone(
    cache: int, tiny_onnx: OnnxBackend, rows: list[tuple[int, int]]
) -> None:
    """An image would depend on who else used the server at that moment, and could not be made again."""
    together = in_step(Networks(tiny_onnx, PrefixCache(cache), joined=1000), ASKED)
    scales = len(tiny_onnx.info.schedule)
    if cache > 1:
        assert [k for k, _ in rows] == list(range(scales))  # one run a scale for all of them
    for requests, own in zip(ASKED, together, strict=True):
        alone = Generator(tiny_onnx)
        assert_same(own, alone.finish(alone.start(requests)))


def test_decoding_and_encoding_are_shared_as_well(tiny_onnx: OnnxBackend) -> None:
    """Pictures of one client could be those of another, or differ from those it gets alone."""
    networks = Networks(tiny_onnx, PrefixCache(), joined=1000)
    rng = np.random.default_rng(0)
    latents = [rng.normal(size=(count, 4, 4, 4)).astype(np.float32) for count in (1, 2, 3)]
    images = [rng.uniform(-1, 1, (count, 1, 16, 16)).astype(np.float32) for count in (1, 2, 3)]
    for own, shared in zip(latents, networks.decoded(0, latents), strict=True):
        np.testing.assert_array_equal(shared, tiny_onnx.decode(own))
    for own, tokens in zip(images, networks.encoded(0, images), strict=True):
        for mine, theirs in zip(tokens, tiny_onnx.encode(own), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_one_row_at_a_time_keeps_jobs_apart(tiny_onnx: OnnxBackend, rows: list[tuple[int, int]]) -> None:
    """On a GPU, whose last digits depend on the batch, nobody could choose to have the same image always."""
    in_step(Networks(tiny_onnx, PrefixCache(), joined=1), ASKED)
    assert len(rows) == len(ASKED) * len(tiny_onnx.info.schedule)


def test_a_long_line_of_edits_lets_others_in(
    tiny_onnx: OnnxBackend, monkeypatch: pytest.MonkeyPatch, edited: Callable[[int], Any]
) -> None:
    """Whoever sends a session of hundreds of edits would hold the server for minutes."""
    trace, networks = edited(6), Networks(tiny_onnx, PrefixCache(), joined=1000)
    order: list[str] = []
    decode = tiny_onnx.decode
    others = ThreadPoolExecutor(1)

    def noted(latent: Any, *, preview: bool = False) -> Any:
        order.append("edit")
        if len(order) == 2:  # another one comes while this turn lasts
            others.submit(networks.ask, other, 0, None, 1, Job(60, Memory(1).share("other")))
            while not networks._turns._waiting:
                time.sleep(0.001)
        return decode(latent, preview=preview)

    def other(_: int, nothing: Sequence[None]) -> Sequence[None]:
        order.append("other")
        return nothing

    monkeypatch.setattr(tiny_onnx, "decode", noted)
    own = generator(networks)
    image = own.image(own.restore([trace]))
    others.shutdown()
    assert order == ["edit", "edit", "other", *["edit"] * 5]
    np.testing.assert_array_equal(image, Generator(tiny_onnx).image(Generator(tiny_onnx).restore([trace])))
