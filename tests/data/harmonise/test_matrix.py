"""Resampling to the matrix agrees with SciPy's filters, whatever the stack, its layout and its size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medvar_engine.data.duplicates.fingerprint import distance, fingerprint, fingerprints
from medvar_engine.data.harmonise.matrix import resample
from medvar_engine.data.harmonise.slicing import PLANES, SLAB, view
from medvar_engine.value_range import encode


def by_scipy(image: np.ndarray, spacing: tuple[float, float], pixel: float, size: int, padding: float) -> np.ndarray:
    """What `resample` promises, one image at a time and in double precision."""
    steps = pixel / np.asarray(spacing)
    smooth = ndimage.gaussian_filter(image.astype(np.float64), np.maximum(0, (steps - 1) / 2), mode="nearest")
    offset = (np.asarray(image.shape) - 1) / 2 - steps * (size - 1) / 2
    expected = ndimage.affine_transform(smooth, steps, offset, (size, size), order=1, mode="nearest")
    for axis, length in enumerate(image.shape):
        at = offset[axis] + steps[axis] * np.arange(size)
        np.moveaxis(expected, axis, 0)[(at < -0.5 - 1e-6) | (at > length - 0.5 + 1e-6)] = padding
    return expected


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(3, 90), st.integers(3, 90), st.floats(0.3, 4), st.floats(0.3, 4), st.floats(0.2, 9), st.integers(16, 96)
)
def test_agrees_with_scipy(height: int, width: int, row_mm: float, column_mm: float, pixel: float, size: int) -> None:
    """Breaks for everyone: slices blurred, shifted or turned, at their borders most of all, would look right."""
    images = noise(2, height, width)
    fitted = resample(images, (row_mm, column_mm), pixel, size, padding=-0.5)
    expected = [by_scipy(image, (row_mm, column_mm), pixel, size, -0.5) for image in images]
    # A code is 1 / 32767.5: half a code for float32, a hundred times what it needs.
    np.testing.assert_allclose(fitted, expected, atol=1.5e-5)
    assert fitted.dtype == np.float32


@pytest.mark.parametrize("plane", PLANES)
def test_a_slice_does_not_depend_on_its_neighbours(plane: str) -> None:
    """Breaks for results that must be the same to the byte: how slices are put together is nobody's business."""
    stack = view(noise(70, 50, 60), plane)
    together = resample(stack, (1.3, 0.9), 1.7, 48)
    prints = fingerprints(together)
    for start, count in ((0, 1), (7, 3), (20, SLAB), (0, 50)):
        some = resample(stack[start : start + count], (1.3, 0.9), 1.7, 48)
        np.testing.assert_array_equal(some, together[start : start + count])
        assert fingerprints(some) == prints[start : start + count]
    copied = resample(np.ascontiguousarray(stack), (1.3, 0.9), 1.7, 48)
    np.testing.assert_array_equal(encode(copied), encode(together))


def test_the_fingerprint_equals_that_of_pillow() -> None:
    """Breaks for data sets made before: copies of their slices in new ones would not be found."""
    from PIL import Image

    for side in (16, 17, 40, 128, 200):
        image = noise(side, side)
        cells = np.asarray(Image.fromarray(image).resize((17, 16), Image.Resampling.BOX))
        expected = np.packbits(cells[:, 1:] > cells[:, :-1] + 1e-3).tobytes()
        assert distance(fingerprint(image), expected) <= 1
