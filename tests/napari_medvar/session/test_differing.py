"""Where images differ: what is shown of alternatives that are alike but in one place."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medvar.session.differing import closeups, differing_window, framed, place_of_token, shift


@pytest.mark.parametrize("corner", [(0, 0), (30, 12), (56, 56)])
def test_the_window_holds_all_that_differs(corner: tuple[int, int]) -> None:
    """What another token changes would be cut off."""
    images = np.zeros((3, 64, 64), dtype=np.float32)
    row, column = corner
    images[2, row : row + 8, column : column + 5] = 0.5
    rows, columns = differing_window(images)
    assert rows.stop - rows.start == columns.stop - columns.start == 16
    assert 0 <= rows.start <= row < row + 8 <= rows.stop <= 64
    assert 0 <= columns.start <= column < column + 5 <= columns.stop <= 64


def test_images_that_look_alike_are_shown_whole() -> None:
    """A place without a difference would be enlarged."""
    images = np.zeros((2, 32, 32), dtype=np.float32)
    images[1] += 0.01
    assert differing_window(images) == (slice(0, 32), slice(0, 32))


def test_tokens_cover_the_image_without_gaps() -> None:
    """The frame would stand beside the token."""
    places = [place_of_token(row, column, 6, 64) for row in range(6) for column in range(6)]
    covered = np.zeros((64, 64), dtype=int)
    for rows, columns in places:
        covered[rows, columns] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("colours", [(), (3,)])
def test_close_ups_have_a_frame_around_the_token(colours: tuple[int, ...]) -> None:
    """Nobody could tell which part of the close-up is the token's."""
    token = place_of_token(2, 3, 8, 64)
    images = np.zeros((2, 64, 64, *colours), dtype=np.float32)
    images[1][token] = 0.8
    near, whole = closeups(images, token)
    assert near[0].shape == (16, 16, 3)
    assert whole[0].shape == (64, 64, 3)
    window = differing_window(images)
    rows, columns = shift(token, window)
    edge = near[0][rows.start, columns]
    assert (edge[:, 0] > edge[:, 2]).all()  # orange
    inside = near[1][rows.start + 2 : rows.stop - 2, columns.start + 2 : columns.stop - 2]
    assert (inside == 1).all()  # the contrast of the place
    np.testing.assert_array_equal(framed(near[0][..., 0], (slice(0, 16), slice(0, 16)))[..., 1], near[0][..., 0])
