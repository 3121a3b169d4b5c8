"""Slices of a stack: each is drawn near the slice before it, the nearer, the smaller the distance."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest
import torch

from medvar_engine.backends.torch import TorchBackend
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.generate.edits import Graft, Replace, Resample
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.prefix_runner import _SLICES_BEFORE
from medvar_engine.generate.replay import replay
from medvar_engine.generate.slice_before import distance_penalty
from medvar_engine.generate.trace import Trace
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.request import Request, StackPlace

LABELS = LabelSpace(("CT", "MR"), ("abdomen", "brain", "chest"), position=2)
CHEST = Condition("CT", "chest")
PAIRS = {"structures": ("liver",), "colours": ("#ff0000",), "mask_scales": (1,), "mask_channels": 2}


@pytest.fixture(params=["latents", "resolutions", "pairs"])
def generator(request: pytest.FixtureRequest, tiny_models: tuple[Tokenizer, Transformer]) -> Generator:
    tokenizer, transformer = tiny_models
    if request.param == "latents":
        return Generator(TorchBackend(tokenizer, transformer, LABELS, bundle_id="ab" * 32))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        masks = PAIRS if request.param == "pairs" else {}
        config = ResolutionConfig(16, (1, 2, 3, 4), 24, 8, 4, 2, (8, 8), 1, 4, **masks)  # type: ignore[arg-type]
        tokenizer = ResolutionTokenizer(config)
        for buffer in tokenizer.quantizer.state_dict().values():
            buffer.normal_(std=0.3)
        transformer = Transformer(TransformerConfig((1, 2, 3, 4), 24, 8, LABELS.sizes, depth=2, width=16, heads=2))
    return Generator(TorchBackend(tokenizer, transformer.eval(), LABELS, bundle_id="ab" * 32))


def drawn(generator: Generator, seed: int, stack: StackPlace | None = None) -> Trace:
    return generator.finish(generator.start([Request(CHEST, seed, stack=stack)])).trace(0)


def after(trace: Trace, step: float, number: int = 1) -> StackPlace:
    return StackPlace(number, step, tuple(trace.pyramid.sequence[0].tolist()))


def test_the_least_penalty_is_that_of_encoding(generator: Generator) -> None:
    """The quantiser of the tokenizer is an independent implementation: it encodes the latent of the slice before."""
    backend = generator.backend
    assert isinstance(backend, TorchBackend)
    before = generator.restore([drawn(generator, 1)]).latents[-1]
    expected = backend._tokenizer.quantizer.encode(torch.from_numpy(before))
    latent = backend.info.no_latent(1)
    for k, wanted in enumerate(expected):
        penalty = distance_penalty(backend.info, backend.codebook, k, 0.05, before[0], latent[0])
        np.testing.assert_array_equal(penalty.argmin(-1), wanted[0].numpy())
        latent, _ = backend.accumulate(latent, penalty.argmin(-1)[None], k)


def test_near_slices_are_alike_and_far_ones_are_not(generator: Generator) -> None:
    """A stack would be no body, or one image again and again."""
    first = drawn(generator, 1)
    own = generator.restore([first]).latents[-1]

    def difference(step: float) -> float:
        found = [drawn(generator, seed, after(first, step)) for seed in range(8)]
        return float(np.abs(generator.restore(found).latents[-1] - own).mean())

    assert difference(1e-3) < difference(0.1) < difference(1.0)
    backend = generator.backend
    penalty = distance_penalty(backend.info, backend.codebook, 3, 1.0, own[0], own[0])
    assert penalty.max() < 0.05  # nats, at the finest scale


def test_slices_have_noise_of_their_own(generator: Generator) -> None:
    """And the first slice is the single image of its seed."""
    first = drawn(generator, 1)
    assert drawn(generator, 1, StackPlace(0, 0.05)).pyramid == first.pyramid
    assert drawn(generator, 5, after(first, 0.5, 1)).pyramid != drawn(generator, 5, after(first, 0.5, 2)).pyramid


def test_slices_do_not_depend_on_their_batch_and_are_replayed(generator: Generator) -> None:
    first, other = drawn(generator, 1), drawn(generator, 2)
    requests = [Request(CHEST, 3, stack=after(one, 0.1, i)) for i, one in enumerate((first, other, first), 1)]
    together = generator.finish(generator.start([*requests, Request(CHEST, 3)]))
    for i, request in enumerate(requests):
        generator.cache.clear()
        alone = generator.finish(generator.start([request])).trace(0)
        assert alone.pyramid == together.trace(i).pyramid
        again = Trace.from_json(alone.to_json())
        assert again.request == request
        assert replay(generator, again).pyramid == alone.pyramid


@pytest.mark.parametrize("k", range(4))
def test_a_resampled_slice_stays_near_the_slice_before(generator: Generator, k: int) -> None:
    """It would not fit its neighbours any more; with its own seed it is the same image."""
    trace = drawn(generator, 3, after(drawn(generator, 1), 0.1, 4))
    assert generator.finish(generator.resample(trace, k)).pyramid == trace.pyramid
    other = generator.finish(generator.resample(trace, k, seed=8)).trace(0)
    assert other.request.stack == trace.request.stack
    assert replay(generator, Trace.from_json(other.to_json())).pyramid == other.pyramid


def test_an_inverted_slice_is_drawn_again(generator: Generator) -> None:
    """Its noise would belong to the logits of a single image."""
    trace = drawn(generator, 3, after(drawn(generator, 1), 0.1))
    again = generator.resample(trace, 0, inversion=generator.invert(trace), seed=9)
    assert generator.finish(again).pyramid == trace.pyramid


def test_edited_slices_stay_near_the_slice_before_and_are_replayed(generator: Generator) -> None:
    """Edits would tear a slice out of its body, or give another image when they are made again."""
    place = after(drawn(generator, 1), 0.1, 4)
    trace, other = drawn(generator, 3, place), drawn(generator, 7, place)
    side = trace.pyramid.schedule[2]
    where = np.arange(side * side).reshape(side, side) % 2 == 0
    tokens = np.full((side, side), 5, dtype=np.int32)
    half = np.indices((generator.backend.info.image_size,) * 2)[0] < generator.backend.info.image_size // 2
    for edit in (Replace(2, where, tokens), Graft(1, other), Resample(1, mask=half)):
        edited = generator.finish(generator.edit(trace, edit)).trace(0)
        assert edited.request.stack == place
        assert replay(generator, Trace.from_json(edited.to_json())).pyramid == edited.pyramid
        alone = changed(trace, request=changed(trace.request, stack=None))
        if not isinstance(edit, Graft):  # which draws nothing
            assert generator.finish(generator.edit(alone, edit)).trace(0).pyramid != edited.pyramid
    grafted = generator.finish(generator.edit(trace, Graft(3, other))).trace(0)
    assert grafted.pyramid.prefix(3) == other.pyramid.prefix(3)


def test_more_different_slices_before_than_are_kept(generator: Generator) -> None:
    """A large batch of slices of many bodies would be drawn near the wrong ones."""
    firsts = [drawn(generator, seed) for seed in range(_SLICES_BEFORE + 2)]
    requests = [Request(CHEST, 3, stack=after(first, 0.1)) for first in firsts]
    together = generator.finish(generator.start(requests))
    for i in (0, 1, len(requests) - 1):
        assert generator.finish(generator.start([requests[i]])).trace(0).pyramid == together.trace(i).pyramid


def test_slices_that_cannot_be_drawn(generator: Generator) -> None:
    """In one sentence each, also for the trace of an unfinished slice, which comes from a stranger."""
    trace = drawn(generator, 1)
    tokens = trace.pyramid.sequence[0].tolist()
    for before, said in (
        ((), "tokens of that slice are not given"),
        (tuple(tokens[:-1]), "has 29 tokens, but the model makes 30"),
        ((*tokens[:-1], 24), "Tokens must be within 0…23"),
    ):
        odd = Request(CHEST, 1, stack=StackPlace(1, 0.05, before))
        unfinished = changed(trace, request=odd, pyramid=trace.pyramid.prefix(1), entropy=trace.entropy[:1])
        for draw in (
            lambda odd=odd: generator.start([odd]),
            lambda unfinished=unfinished: generator.step(generator.restore([unfinished])),
        ):
            with pytest.raises(MedvarError, match=said):
                draw()
    with pytest.raises(MedvarError, match="whole numbers"):
        StackPlace(1, 0.05, (1.5, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0, 2])
def test_a_resampled_slice_costs_only_its_scales(generator: Generator, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the slice before is computed once, not at every scale."""
    trace = drawn(generator, 3, after(drawn(generator, 1), 0.1))
    generator = Generator(generator.backend)
    begun = generator.step(generator.resample(trace, k))
    steps: list[int] = []
    added: list[int] = []
    step, accumulate = generator.backend.step, generator.backend.accumulate
    monkeypatch.setattr(generator.backend, "step", lambda s, x: (steps.append(s.depth), step(s, x))[1])
    monkeypatch.setattr(generator.backend, "accumulate", lambda a, t, k: (added.append(k), accumulate(a, t, k))[1])
    generator.finish(begun)
    assert sorted(set(steps)) == list(range(k + 1, 4))
    assert added == list(range(k + 1, 4))
    generator.finish(generator.resample(trace, 0, seed=5))
    assert added[3 - k :] == list(range(4))


@pytest.mark.parametrize(("channels", "size"), [(3, 8), (8, 12), (4, 9), (4, 2)])
def test_a_codebook_of_another_form_than_the_latent(generator: Generator, channels: int, size: int) -> None:
    """A stranger's bundle would cause a traceback."""
    info = changed(generator.backend.info, latent_channels=channels, image_size=size)
    latent = np.zeros((channels, 4, 4), np.float32)
    with pytest.raises(MedvarError, match="cannot draw stacks"):
        distance_penalty(info, np.ones((3, 5, channels), np.float32), 1, 0.1, latent, latent)


def test_a_model_without_codebook_draws_no_stacks(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn(generator, 1)
    monkeypatch.setattr(TorchBackend, "codebook", None)
    with pytest.raises(MedvarError, match="no codebook"):
        drawn(generator, 3, after(first, 0.1))
