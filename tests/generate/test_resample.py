"""Candidates, locked scales, masks whose outside stays exactly, and another condition half-way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed

import numpy as np
import pytest

from medvar_engine.backends.base import Backend
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.prefix_cache import PrefixCache
from medvar_engine.generate.replay import replay
from medvar_engine.generate.sampling import draw, guide
from medvar_engine.generate.trace import Graft, Outside, Replace, Request, Resample, Trace
from medvar_engine.request import Sampling, StackPlace
from medvar_engine.types import BoolArray, FloatArray

BRAIN, CHEST = Condition("MR", "brain", "axial"), Condition("CT", "chest", "axial")
SCALES, SIZE = 4, 16


@pytest.fixture
def mask() -> BoolArray:
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    mask[2:12, 3:13] = True
    return mask


def saved(generation: Generation) -> Trace:
    """As it is after closing and opening a file."""
    return Trace.from_json(generation.trace(0).to_json())


# -- locked scales --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [(1,), (3,), (1, 2), (3, 1)])
def test_locked_scales_stay(generator: Generator, trace: Trace, keep: tuple[int, ...]) -> None:
    """A scale somebody locked would be drawn anew, or the others would not."""
    new = generator.finish(generator.resample(trace, 0, seed=6, keep=keep))
    for k in range(SCALES):
        same = np.array_equal(new.pyramid.maps[k], trace.pyramid.maps[k])
        assert same == (k in keep) or k == 0  # one token may be drawn again by chance
    edit = new.trace(0).edit
    assert isinstance(edit, Resample)
    assert edit.keep == tuple(sorted(keep))
    assert len(new.entropy) == SCALES


def test_a_cancelled_resample_with_locked_scales_continues_from_its_file(generator: Generator, trace: Trace) -> None:
    """After a crash the locked scales would be drawn, too."""
    start = generator.resample(trace, 0, seed=6, keep=(2,))
    half = saved(generator.step(start))
    assert generator.finish(generator.restore([half])).pyramid == generator.finish(start).pyramid


def test_locked_scales_and_a_mask(generator: Generator, trace: Trace, mask: BoolArray) -> None:
    """Of the two, one would undo the other."""
    new = generator.finish(generator.resample(trace, 0, seed=6, keep=(3,), mask=mask))
    masked = generator.finish(generator.resample(trace, 0, seed=6, mask=mask))
    np.testing.assert_array_equal(new.pyramid.maps[3], trace.pyramid.maps[3])
    assert new.pyramid.prefix(3) == masked.pyramid.prefix(3)


def test_impossible_locks_are_refused(generator: Generator, trace: Trace) -> None:
    """Somebody who locks everything would wait for the same image; an unfinished image would be an index error."""
    with pytest.raises(MedvarError, match="there is nothing to draw"):
        generator.resample(trace, 2, keep=(2, 3))
    with pytest.raises(MedvarError, match="out of range"):
        generator.resample(trace, 2, keep=(4,))
    half = changed(trace, pyramid=trace.pyramid.prefix(2))
    with pytest.raises(MedvarError, match="Scale 3 cannot be kept"):
        generator.resample(half, 1, keep=(3,))
    assert generator.resample(trace, 2, keep=(0, 1)).edits[0].keep == ()  # type: ignore[union-attr]


# -- slices of a stack ----------------------------------------------------------------------------------------------


@pytest.fixture
def stack_slice(generator: Generator) -> Trace:
    before = generator.finish(generator.start([Request(CHEST, 6)])).pyramid.sequence[0]
    request = Request(CHEST, 5, stack=StackPlace(3, 0.05, tuple(before.tolist())))
    return generator.finish(generator.start([request])).trace(0)


@pytest.mark.parametrize("k", range(SCALES))
def test_a_resampled_slice_stays_in_its_stack(generator: Generator, stack_slice: Trace, k: int) -> None:
    """The same seed would give another image, and a varied slice would not fit its neighbours any more."""
    again = generator.finish(generator.resample(stack_slice, k))
    assert again.pyramid == stack_slice.pyramid
    many = generator.finish(generator.resample_many(stack_slice, k, [5, 6]))
    np.testing.assert_array_equal(many.pyramid.sequence[0], stack_slice.pyramid.sequence[0])
    assert {request.stack for request in many.requests} == {stack_slice.request.stack}
    other = Trace.from_json(many.trace(1).to_json())
    assert replay(generator, other).pyramid == other.pyramid


def test_a_slice_that_left_its_stack_is_still_replayed(generator: Generator, stack_slice: Trace) -> None:
    """Resampled slices of earlier versions were drawn with the noise of single images."""
    start = generator.resample(stack_slice, 1)
    earlier = generator.finish(changed(start, requests=(changed(stack_slice.request, stack=None),)))
    assert earlier.pyramid != stack_slice.pyramid
    assert replay(generator, saved(earlier)).pyramid == earlier.pyramid


# -- outside a mask -------------------------------------------------------------------------------------------------


def test_the_outside_stays_exactly(generator: Generator, trace: Trace, mask: BoolArray) -> None:
    """Around a painted lesion the image would shift, and a difference map would show it."""
    before = generator.image(generator.restore([trace]))[0]
    new = generator.finish(generator.resample(trace, 0, seed=6, mask=mask, exact_outside=True))
    after = generator.image(new)[0]
    np.testing.assert_array_equal(after[~mask], before[~mask])
    plain = generator.finish(generator.resample(trace, 0, seed=6, mask=mask))
    np.testing.assert_array_equal(after[mask], generator.image(plain)[0][mask])
    assert not np.array_equal(generator.image(plain)[0][~mask], before[~mask])
    for k in range(SCALES):
        np.testing.assert_array_equal(generator.preview(new, k)[0][~mask], before[~mask])
        np.testing.assert_array_equal(generator.preview(new, k)[0][mask], generator.preview(plain, k)[0][mask])


@pytest.mark.parametrize("soft_edge", [0.5, 2.0, 40.0])
def test_a_soft_edge_lies_inside(generator: Generator, trace: Trace, mask: BoolArray, soft_edge: float) -> None:
    """A seam would be seen; or hiding it would change what is outside."""
    before = generator.image(generator.restore([trace]))[0]
    hard, soft = (
        generator.image(
            generator.finish(generator.resample(trace, 0, seed=6, mask=mask, exact_outside=True, soft_edge=edge))
        )[0]
        for edge in (0, soft_edge)
    )
    np.testing.assert_array_equal(soft[~mask], before[~mask])
    assert (np.abs(soft - before) <= np.abs(hard - before) + 1e-6).all()
    assert not np.array_equal(soft, hard)


def test_an_image_from_a_file_has_the_same_outside(tiny_backend: Backend, trace: Trace, mask: BoolArray) -> None:
    """A saved image would open as another one; so would one that was cancelled and continued."""
    generator = Generator(tiny_backend)
    start = generator.resample(trace, 1, seed=6, mask=mask, exact_outside=True, soft_edge=1.5)
    half, expected = saved(generator.step(start)), generator.image(generator.finish(start))
    fresh = Generator(tiny_backend)
    np.testing.assert_array_equal(fresh.image(fresh.restore([saved(generator.finish(start))])), expected)
    np.testing.assert_array_equal(fresh.image(fresh.finish(fresh.restore([half]))), expected)


def test_masks_one_after_another(watched: Backend, trace: Trace, mask: BoolArray) -> None:
    """The second edit would undo what the first one kept, or decode all images of a session again."""
    generator = Generator(watched)
    other = np.roll(mask, 5, axis=1)
    first = generator.finish(generator.resample(trace, 1, seed=6, mask=mask, exact_outside=True))
    second = generator.finish(generator.resample(first.trace(0), 1, seed=7, mask=other, exact_outside=True))
    images = [generator.image(generator.restore([t]))[0] for t in (trace, first.trace(0))]
    watched.previews.clear()  # type: ignore[attr-defined]
    image = generator.image(second)[0]
    assert len(watched.previews) == 1  # type: ignore[attr-defined]
    np.testing.assert_array_equal(image[~other], images[1][~other])
    np.testing.assert_array_equal(image[~other & ~mask], images[0][~other & ~mask])
    np.testing.assert_array_equal(Generator(watched).image(second)[0], image)


def test_a_long_chain_of_masks(generator: Generator, trace: Trace, mask: BoolArray) -> None:
    """After an afternoon of painting, opening the file would end in a recursion error."""
    for _ in range(1500):
        trace = changed(trace, edit=Resample(1, mask, outside=Outside()), parent=trace)
    generator._finished_images._decode = lambda _: np.zeros((SIZE, SIZE), dtype=np.float32)
    assert generator.image(generator.restore([trace])).shape == (1, SIZE, SIZE)


def test_a_mask_of_everything(generator: Generator, trace: Trace) -> None:
    """The distance to an outside that is not there is undefined."""
    mask = np.ones((SIZE, SIZE), dtype=np.bool_)
    masked = generator.resample(trace, 1, seed=6, mask=mask, exact_outside=True, soft_edge=3)
    plain = generator.resample(trace, 1, seed=6)
    np.testing.assert_array_equal(*(generator.image(generator.finish(g)) for g in (masked, plain)))


def test_says_what_is_wrong_with_an_outside(generator: Generator, trace: Trace, mask: BoolArray) -> None:
    """A forged or damaged file, or a slip in a script, would be a traceback."""
    with pytest.raises(MedvarError, match="exact_outside"):
        generator.resample(trace, 1, mask=mask, soft_edge=2)
    with pytest.raises(MedvarError, match="needs a mask"):
        generator.resample(trace, 1, exact_outside=True)
    for edge in (-1, np.nan, np.inf):
        with pytest.raises(MedvarError, match="soft edge"):
            generator.resample(trace, 1, mask=mask, exact_outside=True, soft_edge=edge)
    orphan = changed(trace, edit=Resample(1, mask, outside=Outside()), parent=None)
    with pytest.raises(MedvarError, match="not in this trace"):
        generator.image(generator.restore([orphan]))
    small = changed(orphan, edit=Resample(1, mask[:3], outside=Outside()), parent=trace)
    with pytest.raises(MedvarError, match="must cover the image"):
        generator.image(generator.restore([small]))
    stranger = changed(trace, bundle_id="cd" * 32)
    with pytest.raises(MedvarError, match="another model"):
        generator.image(generator.restore([changed(orphan, parent=stranger)]))


# -- candidates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(SCALES))
def test_candidates_equal_single_resamples(tiny_onnx: Backend, mask: BoolArray, k: int) -> None:
    """The candidate somebody chose would be another image when made again."""
    generator = Generator(tiny_onnx)
    trace = generator.finish(generator.start([Request(BRAIN, 5)])).trace(0)
    options = {"condition": CHEST, "mask": mask, "exact_outside": True, "soft_edge": 1.0}
    many = generator.finish(generator.resample_many(trace, k, [3, 4, 3, 9], **options))  # type: ignore[arg-type]
    images = generator.image(many)
    for i, seed in enumerate([3, 4, 3, 9]):
        fresh = Generator(tiny_onnx)
        alone = fresh.finish(fresh.resample(trace, k, seed=seed, **options))  # type: ignore[arg-type]
        assert alone.trace(0).to_json() == many.trace(i).to_json()
        np.testing.assert_array_equal(fresh.image(alone)[0], images[i])


def test_candidates_share_their_prefix(watched: Backend) -> None:
    """64 candidates would run their common prefix 64 times."""
    generator = Generator(watched)
    trace = generator.finish(generator.start([Request(BRAIN, 5)])).trace(0)
    generator.cache.clear()
    watched.steps.clear()  # type: ignore[attr-defined]
    many = generator.finish(generator.resample_many(trace, 2, range(8)))
    steps = watched.steps  # type: ignore[attr-defined]
    assert steps[:3] == [(0, 2), (1, 2), (2, 2)]
    assert steps[3] == (3, 2 * len({many.pyramid.tokens(2)[i].tobytes() for i in range(8)}))


def test_the_best_candidate_wins(generator: Generator, trace: Trace) -> None:
    """The candidate that is kept would not be the one that scored best, or could not be made again."""
    seen: list[FloatArray] = []

    def score(previews: FloatArray) -> FloatArray:
        seen.append(previews)
        return previews.mean(axis=(1, 2))

    best = generator.best_of(trace, 1, 5, score, until=2, seed=2**64 - 2)
    assert (best.depth, len(best.requests), seen[0].shape) == (3, 1, (5, SIZE, SIZE))
    seeds = [2**64 - 2, 2**64 - 1, 0, 1, 2]
    winner = int(seen[0].mean(axis=(1, 2)).argmax())
    assert best.requests[0].seed == seeds[winner]
    again = generator.finish(generator.resample(trace, 1, seed=seeds[winner]))
    assert generator.finish(best).pyramid == again.pyramid


def test_the_best_of_new_images(generator: Generator) -> None:
    """The first image of a session could not be chosen among several."""
    best = generator.best_of(generator.start([Request(CHEST, 3)]), 0, 4, lambda previews: previews.std(axis=(1, 2)))
    assert best.depth == 1
    assert best.trace(0).parent is None
    alone = generator.start([Request(CHEST, best.requests[0].seed)])
    assert generator.finish(best).pyramid == generator.finish(alone).pyramid


@pytest.mark.parametrize(
    "score", [lambda p: p, lambda p: p.mean(), lambda p: np.full(len(p), np.nan), lambda p: np.zeros(2)]
)
def test_invalid_scores_are_refused(
    generator: Generator, trace: Trace, score: Callable[[FloatArray], FloatArray]
) -> None:
    """A slip in somebody's score would choose a candidate at random."""
    with pytest.raises(MedvarError, match="score must return 3 numbers"):
        generator.best_of(trace, 1, 3, score)


def test_errors_of_best_of_say_what_is_wrong(generator: Generator, trace: Trace) -> None:
    """No candidates, or a comparison before they differ, would be an index error."""
    for n, until in ((0, 2), (3, 0)):
        with pytest.raises(MedvarError, match="cannot be compared"):
            generator.best_of(trace, 1, n, lambda p: p, until=until)
    with pytest.raises(MedvarError, match="One image"):
        generator.best_of(generator.restore([trace, trace]), 1, 2, lambda p: p)
    with pytest.raises(MedvarError, match="empty"):
        generator.resample_many(trace, 1, [])


# -- another condition ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(SCALES))
def test_another_condition_processes_the_prefix_again(tiny_backend: Backend, trace: Trace, k: int) -> None:
    """Keys and values of the old condition would be mixed with the new one's: a sequence nothing was trained on."""
    info = tiny_backend.info
    labels = np.array([info.labels.encode(CHEST), info.labels.unconditional], dtype=np.int64)
    state, latent, features, expected = tiny_backend.start(labels), None, None, []
    for j in range(SCALES):
        doubled = None if features is None else np.concatenate([features, features])
        logits, state = tiny_backend.step(state, doubled)
        own = guide(logits[0], logits[1], Sampling(1.5).at(j, SCALES).guidance)
        tokens = trace.pyramid.tokens(j)[0] if j < k else draw(own, Sampling(), 6, j)
        expected += tokens.tolist()
        latent, features = tiny_backend.accumulate(latent, tokens[None], j)
    generator = Generator(tiny_backend)
    new = generator.finish(generator.resample(trace, k, seed=6, condition=CHEST))
    assert new.pyramid.sequence[0].tolist() == expected


def test_another_condition_costs_one_row_of_the_prefix_once(watched: Backend) -> None:
    """Trying another region would cost a whole image every time."""
    generator = Generator(watched)
    trace = generator.finish(generator.start([Request(BRAIN, 5)])).trace(0)
    steps = watched.steps  # type: ignore[attr-defined]
    steps.clear()
    generator.finish(generator.resample(trace, 2, condition=CHEST))
    assert steps == [(0, 1), (1, 1), (2, 2), (3, 2)]  # the unconditional row is there already
    steps.clear()
    generator.finish(generator.resample(trace, 2, condition=CHEST, seed=8))
    assert steps == [(2, 2), (3, 2)]


# -- one edit after another -----------------------------------------------------------------------------------------


def test_a_chain_of_edits(tiny_backend: Backend, trace: Trace, mask: BoolArray) -> None:
    """An image at the end of an afternoon's edits could not be made again from its file."""
    generator = Generator(tiny_backend, PrefixCache(limit=0))
    chest = generator.finish(generator.start([Request(CHEST, 8)])).trace(0)
    grafted = generator.edit(trace, Graft(2, chest))
    stamped = generator.finish(generator.with_token(grafted.trace(0), 1, 0, 1, 3))
    painted = generator.finish(generator.resample(stamped.trace(0), 1, seed=4, mask=mask, exact_outside=True))
    regrafted = generator.edit(painted.trace(0), Graft(1, grafted.trace(0)))
    again = saved(regrafted)
    assert again.pyramid.prefix(1) == chest.pyramid.prefix(1)
    np.testing.assert_array_equal(again.pyramid.maps[3], painted.pyramid.maps[3])
    np.testing.assert_array_equal(generator.image(generator.restore([again])), Generator(tiny_backend).image(regrafted))
    replayed = trace
    for edit in (grafted.trace(0).edit, stamped.trace(0).edit):
        assert edit is not None
        replayed = generator.finish(generator.edit(replayed, edit)).trace(0)
    assert replayed.pyramid == stamped.pyramid


def test_grafting_an_image_without_entropy(generator: Generator, trace: Trace) -> None:
    """The structure of a real image under the texture of a drawn one would mix up whose entropy is whose."""
    image = np.random.default_rng(0).uniform(-1, 1, (1, SIZE, SIZE)).astype(np.float32)
    real = generator.encode(image, [Request(BRAIN)]).trace(0)
    grafted = generator.edit(trace, Graft(2, real))
    assert grafted.pyramid.prefix(2) == real.pyramid.prefix(2)
    assert grafted.entropy == ()
    assert saved(grafted).pyramid == grafted.pyramid
    assert generator.finish(generator.resample(grafted.trace(0), 2, seed=1)).complete


# -- tokens by hand -------------------------------------------------------------------------------------------------


def test_images_of_other_tokens(generator: Generator, trace: Trace) -> None:
    """The image somebody picks would not be the one they get."""
    for k in range(SCALES):
        images = generator.token_previews(trace, k, k // 2, 0, [0, 7, 23])
        for image, token in zip(images, (0, 7, 23), strict=True):
            edited = generator.with_token(trace, k, k // 2, 0, token)
            assert edited.pyramid.maps[k][0, k // 2, 0] == token
            assert (edited.pyramid.maps[k] != trace.pyramid.maps[k]).sum() <= 1
            np.testing.assert_allclose(image, generator.preview(edited, k)[0], atol=1e-5)
    edit = edited.trace(0).edit
    assert isinstance(edit, Replace)


def test_says_what_is_wrong_with_a_token(generator: Generator, trace: Trace) -> None:
    """A click beside the image, or a token of another model, would be a traceback."""
    for call in (generator.with_token, lambda *a: generator.token_previews(*a[:-1], [a[-1]])):  # type: ignore[arg-type]
        with pytest.raises(MedvarError, match="3×3"):
            call(trace, 2, 3, 0, 1)  # type: ignore[operator]
        with pytest.raises(MedvarError, match="3×3"):
            call(trace, 2, 0, -1, 1)  # type: ignore[operator]
        with pytest.raises(MedvarError, match="out of range"):
            call(trace, 4, 0, 0, 1)  # type: ignore[operator]
        with pytest.raises(MedvarError, match=r"within 0…23"):
            call(trace, 2, 0, 0, 24)  # type: ignore[operator]
    with pytest.raises(MedvarError, match="0 tokens"):
        generator.token_previews(trace, 1, 0, 0, [])
