"""Settled tokens of the finest scales are skipped: less is computed, and all else is as with any image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from medvar_engine.arrays import FloatArray, IntArray
from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generation import Generation
from medvar_engine.generator import Generator
from medvar_engine.prefix_cache import PrefixCache
from medvar_engine.replay import replay
from medvar_engine.request import Request
from medvar_engine.sampling import Sampling
from medvar_engine.schedule import ScaleSchedule
from medvar_engine.settled import fill_in, skipped_tokens, unsettled
from medvar_engine.trace import Trace

BRAIN, CHEST = Condition("MR", "brain", "axial"), Condition("CT", "chest", "axial")
SIDES = (1, 2, 3, 4)  # of the tiny model


def skipping(share: float, seed: int = 3, condition: Condition = BRAIN) -> Request:
    return Request(condition, seed, Sampling(guidance=2.0, skip_settled=share))


def made(backend: Backend, *requests: Request) -> Generation:
    generator = Generator(backend)
    return generator.finish(generator.start(requests))


class Counting:
    """A backend that notes how many tokens of each scale it computes."""

    def __init__(self, backend: Backend, *, able: bool = True) -> None:
        self._backend = backend
        self.info = replace(backend.info, partial_scales=able)
        self.tokens: list[int] = []
        self.start, self.gather, self.codebook = backend.start, backend.gather, backend.codebook
        self.accumulate, self.encode, self.decode = backend.accumulate, backend.encode, backend.decode
        self.summary = backend.summary

    def step(
        self, state: PrefixState, maps: FloatArray | None, positions: IntArray | None = None
    ) -> tuple[FloatArray, PrefixState]:
        logits, longer = self._backend.step(state, maps, positions)
        self.tokens.append(logits.shape[1])
        return logits, longer


# -- which tokens, and what stands in -------------------------------------------------------------------------------


def test_the_least_changed_places_are_skipped_and_their_neighbours_never_are() -> None:
    """Nothing would stand in for a skipped place whose neighbours are skipped, too; or edges would be skipped."""
    before, change = np.ones((2, 3, 4, 4), np.float32), np.arange(16, dtype=np.float32).reshape(4, 4)
    latent = before + np.stack([change, change[::-1, ::-1]])[:, None]
    places = unsettled(latent, before, 4, 3)
    assert [sorted(set(range(16)) - set(own)) for own in places.tolist()] == [[1, 3, 4], [11, 12, 14]]
    half = unsettled(latent, before, 4, 8)
    assert half.tolist() == [[0, 2, 5, 7, 8, 10, 13, 15]] * 2


def test_what_differs_by_rounding_only_is_in_the_same_order(tiny_backend: Backend) -> None:
    """Another machine or batch would skip other places of an even background, and so give another image."""
    even, rng = np.full((1, 2, 8, 8), 0.3, np.float32), np.random.default_rng(0)
    rounded = even * (1 + rng.uniform(-1e-6, 1e-6, even.shape).astype(np.float32))
    np.testing.assert_array_equal(unsettled(rounded, None, 8, 20), unsettled(even, None, 8, 20))
    assert unsettled(0 * even, even * 0, 8, 20).shape == (1, 44)  # nothing changed at all


def test_the_mean_of_its_neighbours_stands_in_for_a_place() -> None:
    """A skipped place at the border would get the logits of the other side, or of fewer neighbours than it has."""
    logits = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    whole = fill_in(logits[[0, 2, 4, 5, 6, 7, 8]], np.array([0, 2, 4, 5, 6, 7, 8]), 3)
    np.testing.assert_array_equal(whole[[0, 2, 4, 5, 6, 7, 8]], logits[[0, 2, 4, 5, 6, 7, 8]])
    np.testing.assert_allclose(whole[1], logits[[0, 4, 2]].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(whole[3], logits[[0, 4, 6]].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        fill_in(logits[[0, 1, 2, 3, 5, 6, 7, 8]], np.array([0, 1, 2, 3, 5, 6, 7, 8]), 3)[4],
        logits[[1, 3, 5, 7]].mean(axis=0),
        rtol=1e-6,
    )


def test_only_the_two_finest_scales_are_skipped_in() -> None:
    """The rough layout of an image would be made up from its neighbours."""
    schedule = ScaleSchedule((1, 2, 3, 5))
    assert [skipped_tokens(schedule, k, 0.5) for k in range(4)] == [0, 0, 4, 12]
    assert [skipped_tokens(ScaleSchedule((1, 4)), k, 0.25) for k in range(2)] == [0, 4]


@pytest.mark.parametrize("share", [-0.1, 0.51, 1.0, math.nan])
def test_other_shares_are_refused(share: float) -> None:
    """More than half would leave places without a neighbour that was drawn."""
    with pytest.raises(MedvarError, match=r"skip_settled must be between 0 .* and 0\.5"):
        Sampling(skip_settled=share)


# -- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_cost_falls_with_what_is_skipped(tiny_backend: Backend, share: float) -> None:
    """Skipping would only blur."""
    counting = Counting(tiny_backend)
    whole, skipped = made(tiny_backend, skipping(0)), made(counting, skipping(share))
    assert counting.tokens == [1, 4, 9 - int(9 * share), 16 - int(16 * share)]
    assert skipped.pyramid.prefix(2) == whole.pyramid.prefix(2)
    assert skipped.pyramid != whole.pyramid
    counting.tokens.clear()
    assert made(counting, skipping(0)).pyramid == whole.pyramid
    assert counting.tokens == [1, 4, 9, 16]


@pytest.fixture(params=["torch", "onnx"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.getfixturevalue("tiny_backend" if request.param == "torch" else "tiny_onnx")  # type: ignore[no-any-return]


def test_an_image_is_the_same_in_any_batch(backend: Backend) -> None:
    """The same seed would be another image beside one that skips more, less or nothing."""
    requests = [skipping(0.5, 1), skipping(0.25, 2, CHEST), skipping(0, 1), skipping(0.5, 4), skipping(0.25, 5)]
    together = made(backend, *requests)
    for i, request in enumerate(requests):
        assert made(backend, request).pyramid == together.pyramid.select([i])
    assert len({own.pyramid.sequence.tobytes() for own in together.traces}) == len(requests)


def test_torch_and_onnx_skip_alike(tiny_backend: Backend, tiny_onnx: OnnxBackend) -> None:
    """An exported model would draw from positions that it was not trained on."""
    requests = [skipping(0.5, seed) for seed in range(4)]
    assert made(tiny_backend, *requests).pyramid == made(tiny_onnx, *requests).pyramid


@pytest.mark.parametrize("k", range(len(SIDES)))
def test_resampling_with_the_same_seed_changes_nothing(tiny_backend: Backend, k: int) -> None:
    """A resample would differ from its parent for no reason that a person gave, with or without a cache."""
    trace = made(tiny_backend, skipping(0.5)).trace(0)
    for cache in (PrefixCache(), PrefixCache(limit=0)):
        generator = Generator(tiny_backend, cache)
        assert generator.finish(generator.resample(trace, k)).pyramid == trace.pyramid
        assert generator.finish(generator.resample_many(trace, k, [3, 8])).pyramid.select([0]) == trace.pyramid


def test_prefixes_of_several_shares_do_not_mix(tiny_backend: Backend) -> None:
    """Whoever tries shares one after the other would continue prefixes that lack other tokens."""
    trace = made(tiny_backend, skipping(0.5)).trace(0)
    generator = Generator(tiny_backend)
    for share in (0.5, 0, 0.25, 0.5):
        sampling = replace(trace.request.sampling, skip_settled=share)
        again = generator.finish(generator.resample(trace, 3, seed=9, sampling=sampling))
        fresh = Generator(tiny_backend)
        assert again.pyramid == fresh.finish(fresh.resample(trace, 3, seed=9, sampling=sampling)).pyramid


def test_edits_are_replayed_from_a_file(backend: Backend) -> None:
    """A file of an edited image could not be made again, though it says how."""
    generator, mask = Generator(backend), np.zeros((16, 16), dtype=np.bool_)
    mask[:8] = True
    first = made(backend, skipping(0.5)).trace(0)
    inside = generator.finish(generator.resample(first, 1, seed=5, mask=mask)).trace(0)
    by_hand = generator.finish(generator.with_token(inside, 2, 0, 1, 3)).trace(0)
    inversion = generator.invert(by_hand)
    assert generator.finish(generator.resample(by_hand, 0, inversion=inversion)).pyramid == by_hand.pyramid
    other = generator.finish(generator.resample(by_hand, 0, condition=CHEST, inversion=inversion)).trace(0)
    read = Trace.from_json(other.to_json())
    assert read.request.sampling.skip_settled == 0.5
    assert replay(Generator(backend), read).trace(0).to_json() == other.to_json()


def test_what_the_model_thinks_of_an_image_is_asked_of_all_tokens(tiny_backend: Backend) -> None:
    """The likelihood of one image would be another by how it was drawn."""
    trace, generator = made(tiny_backend, skipping(0.5)).trace(0), Generator(tiny_backend)
    plain = replace(trace, request=skipping(0))
    for one, other in zip(*(generator.likelihood(generator.restore([own])) for own in (trace, plain)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_files_of_images_that_skip_nothing_are_as_ever() -> None:
    """Names made of a request, such as a set's, would be others after an update, and a set could not go on."""
    assert set(Sampling().to_dict()) == {"guidance", "temperature", "top_k", "top_p"}
    assert Sampling(**Sampling(skip_settled=0.4).to_dict()) == Sampling(skip_settled=0.4)


def test_a_graph_of_whole_scales_says_what_to_do(tiny_backend: Backend) -> None:
    """With an older bundle the error would be one of the runtime's, in the middle of the work."""
    trace = made(tiny_backend, skipping(0.5)).trace(0)
    older = Generator(Counting(tiny_backend, able=False))
    with pytest.raises(MedvarError, match=r"exported before tokens could be skipped.*medvar export"):
        older.start([skipping(0.4)])
    with pytest.raises(MedvarError, match="medvar export"):
        older.finish(older.resample(trace, 2))
    shown = older.restore([trace])  # to look at it no token is drawn
    assert older.image(shown).shape == (1, 16, 16)


def test_a_server_makes_the_same_images(served: Callable[..., str], tiny_onnx: OnnxBackend) -> None:
    """The same seed would give another image as soon as the GPU is elsewhere."""
    from medvar_engine.backends.remote import RemoteBackend
    from medvar_engine.backends.server import Server

    there = RemoteBackend(Server(served(), patience=30))
    requests = [skipping(0.5, 1), skipping(0.25, 2, CHEST), skipping(0, 3)]
    here = made(tiny_onnx, *requests)
    assert made(there, *requests).pyramid == here.pyramid
    generator = Generator(there)
    assert generator.finish(generator.resample(here.trace(0), 3)).pyramid == here.pyramid.select([0])
