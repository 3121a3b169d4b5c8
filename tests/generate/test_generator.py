from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace as changed

import numpy as np
import pytest

from medvar_engine.backends.base import Backend, PrefixState
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.prefix_cache import PrefixCache, PrefixKey
from medvar_engine.generate.sampling import draw, guide, log_softmax
from medvar_engine.generate.trace import Encoded, Graft, Replace, Request, Resample, Trace
from medvar_engine.request import Sampling
from medvar_engine.tokens.pyramid import mask_at_scale
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray, IntArray

BRAIN = Condition("MR", "brain", "axial")
CHEST = Condition("CT", "chest", "axial")
SCALES, SIZE, VOCABULARY = 4, 16, 24


class Watched(Backend):
    """What the fixture `watched` gives; see conftest.py."""

    steps: list[tuple[int, int]]
    scales: list[int]
    previews: list[bool]


def tokens(generation: Generation, image: int = 0) -> list[int]:
    return list(generation.pyramid.sequence[image].tolist())


# -- same seed, same image ----------------------------------------------------------------------------------------


def test_an_image_follows_from_networks_and_seed(tiny_backend: Backend, generator: Generator) -> None:
    """All else could agree with itself and still be another model's image: here is the loop written out, no cache."""
    request = Request(BRAIN, 9, Sampling(guidance=3.0, top_k=12, top_p=0.9, coarse_top_p=0.5))
    info = tiny_backend.info
    labels = np.array([info.labels.encode(BRAIN), info.labels.unconditional], dtype=np.int64)
    state, latent, features, expected = tiny_backend.start(labels), None, None, []
    for k in range(SCALES):
        doubled = None if features is None else np.concatenate([features, features])
        logits, state = tiny_backend.step(state, doubled)
        sampling = request.sampling.at(k, SCALES)
        drawn = draw(guide(logits[0], logits[1], sampling.guidance), sampling, 9, k)
        expected += drawn.tolist()
        latent, features = tiny_backend.accumulate(latent, drawn[None], k)
    generation = generator.finish(generator.start([request]))
    assert tokens(generation) == expected
    assert latent is not None
    np.testing.assert_allclose(generator.image(generation), tiny_backend.decode(latent)[:, 0], atol=1e-6)
    assert len(set(expected)) > 5  # not a model that always says the same


def test_a_seed_gives_the_same_image_alone_and_in_any_batch(generator: Generator, tiny_backend: Backend) -> None:
    """Candidate 3 of 8 could not be made again on its own."""
    requests = [
        Request(BRAIN, 1),
        Request(CHEST, 2, Sampling(guidance=0, top_p=1)),
        Request(Condition(), 3, Sampling(guidance=4, temperature=0.7)),
        Request(BRAIN, 1, Sampling(top_k=5)),
    ]
    together = generator.finish(generator.start(requests))
    for i, request in enumerate(requests):
        alone = Generator(tiny_backend).finish(Generator(tiny_backend).start([request]))
        assert tokens(alone) == tokens(together, i)
        np.testing.assert_allclose(alone.entropy[-1][0], together.entropy[-1][i], atol=1e-3)
        np.testing.assert_allclose(generator.image(alone)[0], generator.image(together)[i], atol=1e-4)
    assert len({tuple(tokens(together, i)) for i in range(4)}) == 4


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_dropping_the_cache_changes_no_image(generator: Generator, guidance: float) -> None:
    """A small memory would give other images than a large one."""
    requests = [Request(BRAIN, seed, Sampling(guidance=guidance)) for seed in (1, 2)]
    expected = generator.finish(generator.start(requests))
    for forgetful in range(1, SCALES):
        generation = generator.start(requests)
        while not generation.complete:
            generation = generator.step(generation)
            if generation.depth == forgetful:
                generator.cache.clear()
        assert generation.pyramid == expected.pyramid
    without = Generator(generator.backend, PrefixCache(limit=0))
    assert without.finish(without.start(requests)).pyramid == expected.pyramid


@pytest.mark.parametrize("k", range(SCALES))
def test_resampling_with_the_same_seed_changes_nothing(generator: Generator, trace: Trace, k: int) -> None:
    """A resample would differ from its parent for no reason that a person gave."""
    again = generator.finish(generator.resample(trace, k))
    assert again.pyramid == trace.pyramid
    for mine, its in zip(again.entropy, trace.entropy, strict=True):
        np.testing.assert_allclose(mine[0], its, atol=1e-3)


# -- cost follows the change ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(SCALES))
def test_resampling_runs_the_finer_scales_only(watched: Watched, k: int) -> None:
    """Changing the last scale would cost as much as a new image."""
    generator = Generator(watched)
    trace = generator.finish(generator.start([Request(BRAIN, 5)])).trace(0)
    assert watched.steps == [(j, 2) for j in range(SCALES)]
    watched.steps.clear()
    again = generator.finish(generator.resample(trace, k, seed=6))
    assert watched.scales == list(range(k, SCALES))
    assert again.pyramid.prefix(k) == trace.pyramid.prefix(k)


def test_an_image_of_a_batch_is_resampled_alone_from_the_cache(watched: Watched) -> None:
    """Continuing one candidate of many would run its coarse scales again."""
    generator = Generator(watched)
    batch = generator.finish(generator.start([Request(BRAIN, seed) for seed in range(3)]))
    watched.steps.clear()
    again = generator.finish(generator.resample(batch.trace(1), 2))
    assert watched.steps == [(2, 2), (3, 2)]
    assert again.pyramid == batch.pyramid.select([1])


def test_a_lost_prefix_is_computed_once(watched: Watched) -> None:
    """After the cache has dropped a prefix, every later scale would compute it anew."""
    generator = Generator(watched)
    trace = generator.finish(generator.start([Request(BRAIN, 5)])).trace(0)
    generator.cache.clear()
    watched.steps.clear()
    generator.finish(generator.resample(trace, 2, seed=6))
    assert watched.scales == [0, 1, 2, 3]
    watched.steps.clear()
    generator.finish(generator.resample(trace, 2, seed=7))
    assert watched.scales == [2, 3]


def test_another_condition_has_a_separate_prefix(watched: Watched) -> None:
    """The old condition would go on speaking from the cache; the unconditional rows need no second run alone."""
    generator = Generator(watched)
    trace = generator.finish(generator.start([Request(BRAIN, 5)])).trace(0)
    changed_condition = generator.finish(generator.resample(trace, 2, condition=CHEST))
    fresh = Generator(watched)
    assert fresh.finish(fresh.resample(trace, 2, condition=CHEST)).pyramid == changed_condition.pyramid
    assert changed_condition.requests[0].condition == CHEST


def test_nothing_is_doubled_without_guidance(watched: Watched) -> None:
    """Images without guidance would cost twice their price."""
    generator = Generator(watched)
    generator.finish(generator.start([Request(BRAIN, 5, Sampling(guidance=0))]))
    assert watched.steps == [(k, 1) for k in range(SCALES)]
    watched.steps.clear()
    guided, unguided = Request(BRAIN, 6, Sampling(guidance=2)), Request(BRAIN, 7, Sampling(guidance=0))
    together = generator.finish(generator.start([guided, unguided, unguided]))
    assert watched.steps[-1] == (SCALES - 1, 3)  # two of the one, and one of the others, which are the same
    for i, request in enumerate((guided, unguided)):
        alone = Generator(watched)
        assert alone.finish(alone.start([request])).trace(0).pyramid == together.trace(i).pyramid


def test_the_finest_scale_is_not_cached(watched: Watched) -> None:
    """The largest keys and values, which no scale ever reads, would push useful ones out of the cache."""
    kept: list[int] = []

    class Noting(PrefixCache):
        def put_together(self, states: Sequence[tuple[list[PrefixKey], PrefixState]]) -> None:
            kept.extend(state.depth for _, state in states)
            super().put_together(states)

    generator = Generator(watched, Noting())
    generator.finish(generator.start([Request(BRAIN)]))
    assert kept == [1, 2, 3]


# -- scale by scale -------------------------------------------------------------------------------------------------


def test_run_shows_every_scale_and_stops_on_request(generator: Generator) -> None:
    """A cancel in the widget would wait for the whole image; or the preview would skip scales."""
    start = generator.start([Request(BRAIN, 1)])
    assert [g.depth for g in generator.run(start)] == [1, 2, 3, 4]
    assert [g.depth for g in generator.run(start, until=1)] == [1, 2]
    asked: list[bool] = []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) > 2

    stopped = list(generator.run(start, should_stop=should_stop))
    assert [g.depth for g in stopped] == [1, 2]
    assert not stopped[-1].complete
    finished = generator.finish(stopped[-1])
    assert tokens(finished) == tokens(generator.finish(start))


def test_previews_and_images_have_the_right_shape_and_range(watched: Watched) -> None:
    """The viewer would get arrays it cannot show, or pay the full decoder for every preview."""
    generator = Generator(watched)
    generation = generator.finish(generator.start([Request(BRAIN, 1), Request(CHEST, 2)]))
    for k in range(SCALES):
        preview = generator.preview(generation, k)
        assert preview.shape == (2, SIZE, SIZE)
        assert preview.dtype == np.float32
        assert np.abs(preview).max() <= 1
    assert watched.previews == [True, True, True, False]
    np.testing.assert_array_equal(preview, generator.image(generation))
    for k, bits in enumerate(generation.entropy):
        assert bits.shape == (2, k + 1, k + 1)
        assert (bits >= 0).all()
        assert bits.max() <= np.log2(VOCABULARY) + 1e-4


def test_likelihood_is_that_of_the_drawn_tokens(tiny_backend: Backend, generator: Generator, trace: Trace) -> None:
    """The map of surprise would belong to other tokens, or to the guided distribution."""
    generation = generator.restore([trace, trace])
    bits = generator.likelihood(generation)
    assert [part.shape for part in bits] == [(2, side, side) for side in (1, 2, 3, 4)]
    labels = np.array([tiny_backend.info.labels.encode(BRAIN)], dtype=np.int64)
    state, latent, features = tiny_backend.start(labels), None, None
    for k in range(SCALES):
        logits, state = tiny_backend.step(state, features)
        own = trace.pyramid.tokens(k)[0]
        expected = -log_softmax(logits)[0, np.arange(len(own)), own] / np.log(2)
        np.testing.assert_allclose(bits[k][1].ravel(), expected, rtol=1e-3, atol=1e-3)
        latent, features = tiny_backend.accumulate(latent, own[None], k)
    assert len(generator.likelihood(next(generator.run(generator.start([Request(BRAIN)]))))) == 1


# -- edits ----------------------------------------------------------------------------------------------------------


def test_tokens_outside_a_mask_stay(generator: Generator, trace: Trace) -> None:
    """Painting over a lesion would change the rest of the image."""
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[:5, :4] = True
    new = generator.finish(generator.resample(trace, 1, seed=77, mask=mask))
    for k, side in enumerate((1, 2, 3, 4)):
        inside = mask_at_scale(mask, side) if k >= 1 else np.zeros((1, 1), dtype=bool)
        np.testing.assert_array_equal(new.pyramid.maps[k][0][~inside], trace.pyramid.maps[k][0][~inside])
    assert new.pyramid != trace.pyramid
    new_trace = new.trace(0)
    assert new_trace.parent is trace
    assert isinstance(new_trace.edit, Resample)
    assert new_trace.request.seed == 77
    mask[:] = True  # the caller's array
    assert new_trace.edit.mask is not None
    assert not new_trace.edit.mask.all()


def test_a_cancelled_resample_inside_a_mask_can_be_continued_from_its_file(generator: Generator, trace: Trace) -> None:
    """After a crash, the rest of the scales would be drawn outside the mask, too."""
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[9:, 9:] = True
    start = generator.resample(trace, 1, seed=78, mask=mask)
    *_, cancelled = generator.run(start, until=1)
    saved = Trace.from_json(cancelled.trace(0).to_json())
    restored = generator.restore([saved])
    assert generator.finish(restored).pyramid == generator.finish(start).pyramid


def test_replaced_tokens_stay_and_finer_ones_are_drawn(generator: Generator, trace: Trace) -> None:
    """A stamp on scale 1 would vanish, or its finer scales would still show the old image."""
    where, stamp = np.array([[True, False], [False, True]]), np.full((2, 2), 3)
    start = generator.edit(trace, Replace(1, where, stamp))
    assert start.depth == 2
    new = generator.finish(start)
    np.testing.assert_array_equal(new.pyramid.maps[1][0], np.where(where, stamp, trace.pyramid.maps[1][0]))
    assert new.pyramid.prefix(1) == trace.pyramid.prefix(1)
    assert not np.array_equal(new.pyramid.maps[3], trace.pyramid.maps[3])
    assert len(new.trace(0).entropy) == SCALES


def test_grafting_takes_the_coarse_scales_of_another(generator: Generator, trace: Trace) -> None:
    """Style and structure of two images could not be mixed."""
    other = generator.finish(generator.start([Request(CHEST, 8)])).trace(0)
    grafted = generator.edit(trace, Graft(2, other))
    assert grafted.complete
    assert grafted.pyramid.prefix(2) == other.pyramid.prefix(2)
    np.testing.assert_array_equal(grafted.pyramid.maps[3], trace.pyramid.maps[3])
    assert generator.image(grafted).shape == (1, SIZE, SIZE)
    assert grafted.trace(0).parent is trace


def test_a_real_image_becomes_a_finished_generation(generator: Generator, tiny_backend: Backend) -> None:
    """An image from a scanner could not be edited."""
    images = np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE)).astype(np.float32)
    generation = generator.encode(images, [Request(BRAIN), Request(CHEST)])
    assert generation.complete
    assert generation.entropy == ()
    for k, maps in enumerate(tiny_backend.encode(images[:, None])):
        np.testing.assert_array_equal(generation.pyramid.tokens(k), maps)
    first, second = (t.edit for t in generation.traces)
    assert isinstance(first, Encoded)
    assert isinstance(second, Encoded)
    assert first.image != second.image
    resampled = generator.finish(generator.resample(generation.trace(0), 3))
    assert resampled.pyramid.prefix(3) == generation.pyramid.select([0]).prefix(3)
    # what was drawn has an entropy and what was encoded has none: the file must hold that without mixing scales up
    assert Trace.from_json(resampled.trace(0).to_json()).pyramid == resampled.pyramid
    assert generator.image(generator.restore(generation.traces)).shape == (2, SIZE, SIZE)


def test_a_trace_from_a_file_shows_the_same_image(generator: Generator, trace: Trace) -> None:
    """A saved sample would open as another image."""
    generation = generator.restore([Trace.from_json(trace.to_json())])
    np.testing.assert_array_equal(generator.image(generation), generator.image(generator.restore([trace])))
    assert generation.trace(0).to_json() == trace.to_json()


def test_resampling_unfinished_images(generator: Generator) -> None:
    """A cancelled image could not be changed before it is finished."""
    *_, half = generator.run(generator.start([Request(BRAIN, 4)]), until=1)
    assert generator.resample(half.trace(0), 2).depth == 2
    assert generator.resample(half.trace(0), 1, seed=9).depth == 1
    with pytest.raises(MedvarError, match=r"Scale 3 cannot be resampled yet.*2 scales"):
        generator.resample(half.trace(0), 3)


# -- errors for people ----------------------------------------------------------------------------------------------


def test_says_what_was_wrong_with_a_request(generator: Generator) -> None:
    """Somebody at the command line would see a traceback."""
    with pytest.raises(MedvarError, match="empty"):
        generator.start([])
    with pytest.raises(MedvarError, match="mean 'brain'"):
        generator.start([Request(Condition(region="brian"))])
    with pytest.raises(MedvarError, match="not conditioned on dataset"):
        generator.start([Request(Condition(dataset="ixi"))])
    with pytest.raises(MedvarError, match=r"Scale 4 is out of range.*0…3"):
        list(generator.run(generator.start([Request()]), until=4))


def test_says_what_was_wrong_with_an_edit(generator: Generator, trace: Trace) -> None:
    """Somebody in the widget would see a traceback."""
    side_two = np.ones((2, 2), dtype=bool)
    mask = np.ones((SIZE, SIZE), dtype=bool)
    with pytest.raises(MedvarError, match="out of range"):
        generator.resample(trace, 4)
    with pytest.raises(MedvarError, match="out of range"):
        generator.resample(trace, -1)
    with pytest.raises(MedvarError, match="mean 'brain'"):
        generator.resample(trace, 1, condition=Condition(region="brian"))
    with pytest.raises(MedvarError, match="16×16 pixels"):
        generator.resample(trace, 1, mask=mask[:4])
    with pytest.raises(MedvarError, match="empty"):
        generator.resample(trace, 1, mask=~mask)
    with pytest.raises(MedvarError, match="finished image"):
        generator.resample(changed(trace, pyramid=trace.pyramid.prefix(2)), 1, mask=mask)
    with pytest.raises(MedvarError, match="2×2"):
        generator.edit(trace, Replace(1, np.ones((3, 3), dtype=bool), np.zeros((2, 2), dtype=np.int64)))
    with pytest.raises(MedvarError, match=r"within 0…23.*24"):
        generator.edit(trace, Replace(1, side_two, np.full((2, 2), 24)))
    with pytest.raises(MedvarError, match=r"Generator\.encode"):
        generator.edit(trace, Encoded("00"))
    assert generator.edit(trace, Resample(2)).depth == 2


def test_missing_scales_are_reported(generator: Generator, trace: Trace) -> None:
    """A preview asked for too early would be an index error."""
    start = generator.start([Request(BRAIN)])
    with pytest.raises(MedvarError, match="no preview of scale 0"):
        generator.preview(start, 0)
    with pytest.raises(MedvarError, match="not finished"):
        generator.image(start)
    with pytest.raises(MedvarError, match="complete"):
        generator.step(generator.restore([trace]))


def test_invalid_images_are_not_encoded(generator: Generator) -> None:
    """Raw HU values would be encoded as if they were harmonised."""
    image = np.zeros((1, SIZE, SIZE), dtype=np.float32)
    with pytest.raises(MedvarError, match=r"\(1, 16, 16\).*\(1, 8, 8\)"):
        generator.encode(image[:, :8, :8], [Request()])
    with pytest.raises(MedvarError, match="harmonise"):
        generator.encode(image + 40, [Request()])
    with pytest.raises(MedvarError, match="harmonise"):
        generator.encode(image * np.float32(np.nan), [Request()])
    with pytest.raises(MedvarError, match="mean 'brain'"):
        generator.encode(image, [Request(Condition(region="brian"))])


def test_refuses_traces_of_another_model(generator: Generator, make_trace: Callable[..., Trace]) -> None:
    """A sample of another bundle would be decoded into noise."""
    with pytest.raises(MedvarError, match="Open the bundle that made it"):
        generator.restore([make_trace((1, 2, 3))])
    with pytest.raises(MedvarError, match="Open the bundle that made it"):
        generator.resample(make_trace((1, 2, 3)), 1)
    with pytest.raises(MedvarError, match="within 0…23"):
        generator.restore([make_trace((1, 2, 3, 4))])  # tokens of a larger vocabulary


def test_takes_traces_that_name_the_weights(generator: Generator, tiny_backend: Backend, trace: Trace) -> None:
    """An image tried out in torch could not be opened with the bundle of the same weights."""

    class Exported:
        info = changed(tiny_backend.info, weights="cd" * 32)

    exported = Generator(Exported())  # type: ignore[arg-type]
    exported.backend.__dict__ |= {n: getattr(tiny_backend, n) for n in ("accumulate", "decode")}
    by_weights = changed(trace, bundle_id="cd" * 32)
    np.testing.assert_array_equal(
        exported.image(exported.restore([by_weights])), generator.image(generator.restore([trace]))
    )
    for name in ("", "ef" * 32):
        with pytest.raises(MedvarError, match="another model"):
            exported.restore([changed(trace, bundle_id=name)])
    with pytest.raises(MedvarError, match="another model"):
        generator.restore([changed(trace, bundle_id="")])


def test_colour_models_give_colour_images(generator: Generator) -> None:
    """Published VAR weights make RGB images, which viewers want as (H, W, 3)."""

    class Colour:
        info = changed(generator.backend.info, image_channels=3, schedule=ScaleSchedule((1, 2)))

        def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
            assert images.shape == (1, 3, SIZE, SIZE)
            return np.zeros((1, 1), dtype=np.int64), np.zeros((1, 4), dtype=np.int64)

        def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, None]:
            return np.zeros((1, 1, 2, 2), dtype=np.float32), None

        def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
            return np.zeros((1, 3, SIZE, SIZE), dtype=np.float32)

    colour = Generator(Colour())  # type: ignore[arg-type]
    generation = colour.encode(np.zeros((1, SIZE, SIZE, 3), dtype=np.float32), [Request()])
    assert colour.image(generation).shape == (1, SIZE, SIZE, 3)
