"""Smooth and grainy images are told from real ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.texture import compare_texture, gradient_strength, octave_power


@pytest.fixture
def real() -> np.ndarray:
    """Noise of all frequencies, the coarse ones stronger."""
    noise = np.random.default_rng(0).normal(size=(12, 64, 64))
    return np.clip(ndimage.gaussian_filter(noise, (0, 1, 1)), -1, 1).astype(np.float32)


def test_an_image_against_itself(real: np.ndarray) -> None:
    """Real slices would not have the texture of real slices."""
    found = compare_texture(real, real, "itself")
    assert found.gradient == pytest.approx(1)
    assert found.octaves == pytest.approx([1] * 5)


def test_blur_and_grain_show_in_the_fine_octaves(real: np.ndarray) -> None:
    """A model that draws wool would pass."""
    blurred = ndimage.gaussian_filter(real, (0, 2, 2))
    grainy = real + np.random.default_rng(1).normal(scale=0.3, size=real.shape).astype(np.float32)
    smooth, rough = (compare_texture(images, real, "real") for images in (blurred, grainy))
    assert smooth.gradient < 0.7
    assert smooth.octaves[-1] < 0.1 < 0.9 < smooth.octaves[0] < 1.1
    assert rough.gradient > 1.3
    assert rough.octaves[-1] > 2
    assert rough.octaves[0] < 1.3


def test_octaves_hold_the_waves_of_their_frequencies() -> None:
    """Power would be told of at another frequency than it lies at."""
    x = np.arange(64) / 64
    for periods, octave in ((1, 0), (3, 1), (5, 2), (12, 3), (20, 4)):
        wave = np.broadcast_to(np.sin(2 * np.pi * periods * x), (1, 64, 64)).astype(np.float32)
        assert octave_power(wave).argmax() == octave


def test_a_slope_has_the_expected_gradient() -> None:
    """Strength would depend on the direction of an edge, or on the number of images."""
    slope = np.broadcast_to(np.arange(8, dtype=np.float32) * 0.1, (3, 8, 8))
    assert gradient_strength(slope) == pytest.approx(0.1)
    assert gradient_strength(slope.transpose(0, 2, 1)) == pytest.approx(0.1)


def test_an_empty_side_is_refused(real: np.ndarray) -> None:
    """An empty set of images would be as good as any."""
    with pytest.raises(MedvarError, match="cannot be compared"):
        compare_texture(real[:0], real, "real")
    with pytest.raises(MedvarError, match="cannot be compared"):
        compare_texture(real[:, :32, :32], real, "real")
