"""Slices of a stack between two steps of the position: their logits change gradually from one step to the next."""

from __future__ import annotations

import numpy as np
import pytest

from medvar_engine.backends.torch import TorchBackend
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.prefix_runner import Prefixes
from medvar_engine.generate.replay import replay
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.request import Request, Sampling, StackPlace
from medvar_engine.types import FloatArray

# As many labels as the tiny networks have; a step of the position is half of the scan.
LABELS = LabelSpace(("CT", "MR"), ("abdomen", "brain", "chest"), position=2)
STRONG = Sampling(guidance=2.0, coarse_guidance=1.0)


@pytest.fixture(params=[False, True], ids=["without guide", "with guide"])
def generator(tiny_models: tuple[Tokenizer, Transformer], request: pytest.FixtureRequest) -> Generator:
    guide = tiny_models[1] if request.param else None
    return Generator(TorchBackend(*tiny_models, LABELS, bundle_id="ab" * 32, guide=guide))


def at(position: float, *, alone: bool = False, sampling: Sampling = STRONG) -> Request:
    stack = None if alone else StackPlace(0, 0.05)
    return Request(Condition("CT", "chest", position=position), 5, sampling, stack=stack)


def logits(generator: Generator, *requests: Request) -> list[FloatArray]:
    """Guided logits of the second scale, after equal tokens of the first."""
    begun = generator.step(generator.start([at(0.25, alone=True)]))
    prefixes = Prefixes(generator.backend, generator.cache)
    *_, after = prefixes.replay(requests, begun.pyramid.select([0] * len(requests)))
    return list(prefixes.guided_logits(after))


def test_logits_are_interpolated(generator: Generator) -> None:
    """Two neighbouring slices would show different places where a step of the position ends."""
    first, quarter, middle, last = logits(generator, at(0.25), at(0.375), at(0.5), at(0.75))
    np.testing.assert_allclose(quarter, 0.75 * first + 0.25 * last, atol=1e-4)
    np.testing.assert_allclose(middle, (first + last) / 2, atol=1e-4)
    below, above = logits(generator, at(0.4999), at(0.5001))
    assert np.abs(above - below).max() < 0.01 * np.abs(last - first).max()


def test_single_images_are_of_their_step(generator: Generator) -> None:
    """Their seeds would give other images than before; and so would slices in the middle of a step, and at the ends."""
    alone = logits(generator, at(0.1, alone=True), at(0.45, alone=True), at(0.25), at(0.1))
    for other in alone[1:]:
        np.testing.assert_allclose(alone[0], other, atol=1e-5)


def test_slices_do_not_depend_on_their_batch_and_are_replayed(generator: Generator) -> None:
    requests = [at(0.3 + 0.1 * i, sampling=Sampling(guidance=i % 2)) for i in range(4)]
    together = generator.finish(generator.start([*requests, at(0.4, alone=True)]))
    for i, one in enumerate(requests):
        generator.cache.clear()
        alone = generator.finish(generator.start([one]))
        np.testing.assert_array_equal(alone.pyramid.sequence[0], together.pyramid.sequence[i])
    assert replay(generator, together.trace(2)).pyramid == together.trace(2).pyramid


def test_an_inverted_slice_is_drawn_again(generator: Generator) -> None:
    """Its noise would belong to the logits of a single image."""
    trace = generator.finish(generator.start([at(0.45)])).trace(0)
    again = generator.resample(trace, 0, inversion=generator.invert(trace), seed=9)
    assert generator.finish(again).pyramid == trace.pyramid
