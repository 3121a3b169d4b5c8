"""Two transformers draw one image: each its own scales, whatever stands beside it and wherever it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.backends.base import Backend
from medvar_engine.backends.collaborative import CollaborativeBackend, collaborative_model, open_model
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.bundle import FINE, read_bundle
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.edits import Resample
from medvar_engine.errors import MedvarError
from medvar_engine.generator import Generator
from medvar_engine.prefix_cache import PrefixCache
from medvar_engine.replay import replay
from medvar_engine.sampling import Sampling
from medvar_engine.trace import Request

FROM, SCALES = 2, 4
REQUESTS = [
    Request(Condition("CT", "chest"), 4, Sampling(guidance=2.0)),
    Request(Condition("MR"), 5, Sampling(guidance=0.0)),
    Request(Condition("CT", "chest"), 6, Sampling(top_k=5)),
    Request(Condition("MR", "brain"), 8, Sampling(skip_settled=0.5)),
]
Weights = tuple[Path, Path]


@pytest.fixture(scope="module")
def pairs(tiny_weights: Weights, tiny_fine: Path, tiny_pair: Path) -> dict[str, tuple[Backend, Backend]]:
    """The coarse and the fine model, in torch and in ONNX Runtime."""
    bundle = read_bundle(tiny_pair)
    return {
        "torch": (TorchBackend.load(*tiny_weights), TorchBackend.load(tiny_weights[0], tiny_fine)),
        "onnx": (OnnxBackend(bundle, device="cpu"), OnnxBackend(bundle, device="cpu", graph=FINE)),
    }


@pytest.fixture(params=["torch", "onnx"])
def pair(pairs: dict[str, tuple[Backend, Backend]], request: pytest.FixtureRequest) -> tuple[Backend, Backend]:
    return pairs[request.param]


def test_each_draws_its_own_scales(pair: tuple[Backend, Backend]) -> None:
    """The large transformer would draw all, or the small one would draw from what it has not read."""
    together = Generator(CollaborativeBackend(*pair, FROM))
    drawn = together.finish(together.start(REQUESTS))
    found = together.likelihood(drawn)
    alone = []
    for backend in pair:
        generator = Generator(backend)
        read = generator.start(REQUESTS)
        for k in range(SCALES):
            read = generator._prefixes.grow(read, drawn.pyramid.tokens(k))
        alone.append(generator.likelihood(read))
    for k in range(SCALES):
        own, other = alone if k < FROM else reversed(alone)
        np.testing.assert_allclose(found[k], own[k], atol=1e-4)
        assert np.abs(found[k] - other[k]).max() > 0.1
    generator = Generator(pair[0])
    assert generator.finish(generator.start(REQUESTS)).pyramid.prefix(FROM) == drawn.pyramid.prefix(FROM)


def test_an_image_does_not_depend_on_what_is_beside_it(pair: tuple[Backend, Backend]) -> None:
    """The same seed would be another image in a batch, among candidates, or once the cache has dropped a prefix."""
    backend = CollaborativeBackend(*pair, FROM)
    together = Generator(backend)
    batch = together.finish(together.start(REQUESTS))
    for i, request in enumerate(REQUESTS):
        generator = Generator(backend, PrefixCache(limit=0))
        assert generator.finish(generator.start([request])).trace(0).pyramid == batch.trace(i).pyramid
    trace = batch.trace(0)
    for from_scale in range(SCALES):
        many = together.finish(together.resample_many(trace, from_scale, [7, 8, 9]))
        for i, seed in enumerate([7, 8, 9]):
            generator = Generator(backend)
            one = generator.finish(generator.resample(trace, from_scale, seed=seed))
            assert one.trace(0).pyramid == many.trace(i).pyramid
    mixed = together.restore([many.trace(2), batch.trace(0), many.trace(0)])  # rows of several prefixes
    again = Generator(backend).likelihood(mixed)
    for own, other in zip(together.likelihood(mixed), again, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4)


@pytest.mark.parametrize("from_scale", range(SCALES))
def test_drawing_again_costs_what_is_drawn(pair: tuple[Backend, Backend], watched: Any, from_scale: int) -> None:
    """Trying other details would cost the coarse scales once more, in one transformer or the other."""
    coarse, fine = (type(watched)(backend) for backend in pair)
    generator = Generator(CollaborativeBackend(coarse, fine, FROM))
    trace = generator.finish(generator.start(REQUESTS[:1])).trace(0)
    assert (coarse.scales, fine.scales) == ([0, 1], [0, 1, 2, 3])
    coarse.steps.clear()
    fine.steps.clear()
    generator.finish(generator.resample_many(trace, from_scale, [7, 8]))
    assert coarse.scales == list(range(from_scale, FROM))
    assert fine.scales == list(range(from_scale, SCALES))


def test_the_cache_holds_what_it_says(pair: tuple[Backend, Backend]) -> None:
    """Memory would grow beyond its bound, or the keys and values of one model would be taken for another's."""
    cache = PrefixCache()
    backends = [CollaborativeBackend(*pair, FROM), pair[0], CollaborativeBackend(*pair, FROM + 1), pair[1]]
    shared = [Generator(backend, cache) for backend in backends]
    for generator in shared:
        alone = Generator(generator.backend)
        expected = alone.finish(alone.start(REQUESTS))
        assert generator.finish(generator.start(REQUESTS)).pyramid == expected.pyramid
    assert cache.nbytes > 0
    state = backends[0].start(np.zeros((2, 3), dtype=np.int64))
    for own, k in ((0, 0), (1, 0)):
        _, longer = pair[own].step(pair[own].start(state.labels), None)
        state_bytes = longer.chunks[k].nbytes
        assert backends[0].step(state, None)[1].chunks[0].nbytes > state_bytes
    cache.clear()
    assert cache.nbytes == 0


def test_traces_say_which_drew(tiny_pair: Path, tiny_bundle: Path) -> None:
    """An image of both would be passed off as one of the bundle alone, or be drawn again by the wrong one."""
    bundle = read_bundle(tiny_pair)
    both = Generator(open_model(bundle, collaborative_model(bundle), device="cpu"))
    alone = Generator(OnnxBackend(bundle, device="cpu"))
    made = [g.finish(g.start(REQUESTS[:1])).trace(0) for g in (both, alone)]
    assert [trace.model for trace in made] == [bundle.collaborative_digest, bundle.digest]
    assert bundle.digest == read_bundle(tiny_bundle).digest
    for trace in made:
        again = replay(Generator(open_model(bundle, trace.model, device="cpu")), trace)
        assert again.trace(0).pyramid == trace.pyramid
    for generator, trace in ((alone, made[0]), (both, made[1])):
        with pytest.raises(MedvarError, match="another model"):
            generator.resample(trace, 1)
    small = replace(bundle, fine=replace(bundle.fine, from_scale=3))  # type: ignore[type-var]
    assert small.collaborative_digest not in (None, bundle.collaborative_digest)
    with pytest.raises(MedvarError, match=f"{tiny_bundle} has no transformer for the fine scales"):
        collaborative_model(read_bundle(tiny_bundle))


def test_torch_and_the_bundle_draw_alike(tiny_pair: Path, tiny_weights: Weights, tiny_fine: Path) -> None:
    """An image of a bundle could not be examined in torch."""
    bundle = read_bundle(tiny_pair)
    exported = Generator(open_model(bundle, collaborative_model(bundle), device="cpu"))
    backends = (
        TorchBackend.load(*tiny_weights, model=bundle.digest),
        TorchBackend.load(tiny_weights[0], tiny_fine, model=bundle.sha256[FINE]),
    )
    ours = Generator(CollaborativeBackend(*backends, FROM))
    trace = exported.finish(exported.start(REQUESTS[:1])).trace(0)
    assert ours.finish(ours.resample(trace, 0)).trace(0).pyramid == trace.pyramid


def test_the_other_doors_are_open(pair: tuple[Backend, Backend]) -> None:
    """Inverting, features, real images or tokens alike would end in a traceback with two transformers."""
    backend = CollaborativeBackend(*pair, FROM)
    generator = Generator(backend)
    drawn = generator.finish(generator.start(REQUESTS[:2]))
    trace = drawn.trace(0)
    inversion = generator.invert(trace)
    same = generator.finish(generator.resample(trace, 0, inversion=inversion))
    assert same.trace(0).pyramid == trace.pyramid
    assert isinstance(same.trace(0).edit, Resample)
    assert np.isfinite(generator.features(drawn)).all()
    np.testing.assert_array_equal(backend.codebook, pair[0].codebook)
    encoded = generator.encode(generator.image(drawn), REQUESTS[:2])
    np.testing.assert_array_equal(
        encoded.pyramid.sequence, Generator(pair[0]).encode(generator.image(drawn), REQUESTS[:2]).pyramid.sequence
    )


@pytest.mark.parametrize("from_scale", [-1, 0, SCALES])
def test_one_without_a_scale_to_draw_is_refused(pair: tuple[Backend, Backend], from_scale: int) -> None:
    """A slip would have the small transformer draw everything, or nothing."""
    with pytest.raises(MedvarError, match=f"1…3, not at {from_scale}"):
        CollaborativeBackend(*pair, from_scale)


@pytest.mark.parametrize(
    ("name", "value"), [("labels", LabelSpace(modality=("MR", "CT"))), ("vocabulary", 25), ("latent_channels", 5)]
)
def test_models_that_do_not_fit_are_refused(
    pair: tuple[Backend, Backend], watched: Any, name: str, value: Callable[..., Any]
) -> None:
    """The small transformer would be told of other conditions, or read codes that it never saw."""
    other = type(watched)(pair[1])
    other.info = replace(other.info, **{name: value})
    with pytest.raises(MedvarError, match=name):
        CollaborativeBackend(pair[0], other, FROM)
