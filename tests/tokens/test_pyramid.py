from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medvar_engine.errors import MedvarError
from medvar_engine.tokens.pyramid import TokenPyramid, graft, mask_at_scale, replace
from medvar_engine.tokens.schedule import ScaleSchedule

SCHEDULE = ScaleSchedule((1, 2, 4))


@st.composite
def schedules(draw: st.DrawFn) -> ScaleSchedule:
    return ScaleSchedule(tuple(sorted(draw(st.sets(st.integers(1, 7), min_size=1, max_size=4)))))


@st.composite
def pyramids(draw: st.DrawFn) -> TokenPyramid:
    schedule = draw(schedules())
    depth, batch = draw(st.integers(0, len(schedule))), draw(st.integers(1, 3))
    tokens = draw(arrays(np.int64, (batch, schedule.offsets[depth]), elements=st.integers(0, 4095)))
    return TokenPyramid.from_sequence(schedule, tokens)


def full(seed: int = 0, batch: int = 1) -> TokenPyramid:
    tokens = np.random.default_rng(seed).integers(0, 99, (batch, SCHEDULE.tokens))
    return TokenPyramid.from_sequence(SCHEDULE, tokens)


@given(pyramids())
def test_sequence_and_maps_are_the_same_tokens(pyramid: TokenPyramid) -> None:
    """Tokens written to a file and read again would make another image."""
    again = TokenPyramid.from_sequence(pyramid.schedule, pyramid.sequence)
    assert again == pyramid
    assert hash(again) == hash(pyramid)
    assert again.batch == pyramid.batch
    for k, side in enumerate(pyramid.schedule.sides[: pyramid.depth]):
        assert pyramid.maps[k].shape == (pyramid.batch, side, side)
        np.testing.assert_array_equal(pyramid.maps[k].reshape(pyramid.batch, -1), pyramid.tokens(k))


@given(pyramids())
def test_growing_scale_by_scale_gives_the_whole(pyramid: TokenPyramid) -> None:
    """A prefix kept from one image would not lead to that image again."""
    grown = TokenPyramid.empty(pyramid.schedule, pyramid.batch)
    for k in range(pyramid.depth):
        assert grown == pyramid.prefix(k)
        grown = grown.append(pyramid.tokens(k))
    assert grown == pyramid
    assert grown.complete == (pyramid.depth == len(pyramid.schedule))


@given(pyramids(), st.data())
def test_select_and_stack_are_inverse(pyramid: TokenPyramid, data: st.DataObject) -> None:
    """An image taken out of a batch would be another image."""
    alone = [pyramid.select([i]) for i in range(pyramid.batch)]
    assert TokenPyramid.stack(alone) == pyramid
    order = data.draw(st.lists(st.integers(0, pyramid.batch - 1), max_size=4))
    chosen = pyramid.select(order)
    assert chosen.batch == len(order)
    for place, i in enumerate(order):
        assert chosen.digest(place) == alone[i].digest(0)


def test_nothing_in_a_pyramid_can_change() -> None:
    """Undo would show what a later edit did, for old and new images share their token maps."""
    tokens = np.arange(SCHEDULE.tokens)[None]
    pyramid = TokenPyramid.from_sequence(SCHEDULE, tokens)
    tokens[:] = 0
    assert pyramid.sequence[0].tolist() == list(range(SCHEDULE.tokens))
    with pytest.raises(ValueError, match="read-only"):
        pyramid.maps[1][0, 0, 0] = 7
    with pytest.raises(AttributeError):
        pyramid.maps = ()  # type: ignore[misc]
    pyramid.sequence[:] = 0  # a copy
    assert pyramid.maps[2].max() == SCHEDULE.tokens - 1


def test_edits_leave_the_original_and_share_the_rest() -> None:
    """The parent of an edited image would be lost, or memory would grow with each edit."""
    old = full()
    before = old.sequence.copy()
    new = replace(old, 1, np.array([[True, False], [False, False]]), np.full((2, 2), 1234))
    np.testing.assert_array_equal(old.sequence, before)
    assert new.maps[1][0].tolist() == [[1234, old.maps[1][0, 0, 1]], *old.maps[1][0, 1:].tolist()]
    assert new.maps[0] is old.maps[0]
    assert new.maps[2] is old.maps[2]


@pytest.mark.parametrize("k", range(4))
def test_graft_takes_coarse_scales_from_one_and_fine_ones_from_the_other(k: int) -> None:
    """Grafted coarse structure would not be what the person chose."""
    coarse, fine = full(1), full(2)
    grafted = graft(coarse, fine, k)
    assert grafted.complete
    assert grafted.prefix(k) == coarse.prefix(k)
    assert all(np.array_equal(grafted.maps[j], fine.maps[j]) for j in range(k, 3))


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_mask_touches_a_token_exactly_when_one_of_its_pixels_is_set(
    side: int, height: int, width: int, data: st.DataObject
) -> None:
    """A painted pixel would lie under a token that is kept, and would not change."""
    mask = data.draw(arrays(np.bool_, (height, width)))
    touched = mask_at_scale(mask, side)
    assert touched.shape == (side, side)
    expected = np.zeros((side, side), dtype=bool)
    for y, x in np.argwhere(mask):
        for i in range(side):
            for j in range(side):
                # The token covers [i/side, (i+1)/side) of the image, the pixel [y/height, (y+1)/height).
                in_row = i * height < (y + 1) * side and y * side < (i + 1) * height
                in_column = j * width < (x + 1) * side and x * side < (j + 1) * width
                expected[i, j] |= in_row and in_column
    np.testing.assert_array_equal(touched, expected)


def test_says_what_does_not_fit() -> None:
    """A damaged file or a wrong call would fail later, somewhere else."""
    with pytest.raises(MedvarError, match="length of"):
        TokenPyramid.from_sequence(SCHEDULE, np.zeros((1, 3), dtype=np.int64))
    with pytest.raises(MedvarError, match="integers"):
        TokenPyramid.from_sequence(SCHEDULE, np.zeros((1, 1)))  # type: ignore[arg-type]
    with pytest.raises(MedvarError, match="negative"):
        TokenPyramid.from_sequence(SCHEDULE, -np.ones((1, 1), dtype=np.int64))
    with pytest.raises(MedvarError, match="scale 1 must be"):
        TokenPyramid(SCHEDULE, (np.zeros((1, 1, 1), dtype=np.int64), np.zeros((1, 3, 3), dtype=np.int64)))
    with pytest.raises(MedvarError, match="cannot hold 4"):
        TokenPyramid(SCHEDULE, tuple(np.zeros((1, n, n), dtype=np.int64) for n in (1, 2, 4, 5)))
    with pytest.raises(MedvarError, match="complete"):
        full().append(np.zeros((1, 64), dtype=np.int64))
    with pytest.raises(MedvarError, match="2×2"):
        full().prefix(1).append(np.zeros((1, 5), dtype=np.int64))
    with pytest.raises(MedvarError, match="out of range"):
        full().prefix(2).tokens(2)
    with pytest.raises(MedvarError, match="out of range"):
        full().prefix(4)
    with pytest.raises(MedvarError, match="can form a batch"):
        TokenPyramid.stack([full(), full().prefix(1)])
    with pytest.raises(MedvarError, match="can form a batch"):
        TokenPyramid.stack([])
    with pytest.raises(MedvarError, match="grafted"):
        graft(full(batch=2), full(), 1)
    with pytest.raises(MedvarError, match="not exist yet"):
        replace(full().prefix(1), 1, np.ones((2, 2), dtype=bool), np.zeros((2, 2), dtype=np.int64))
    with pytest.raises(MedvarError, match="do not fit"):
        replace(full(), 1, np.ones((3, 3), dtype=bool), np.zeros((2, 2), dtype=np.int64))
    assert full() != "tokens"
