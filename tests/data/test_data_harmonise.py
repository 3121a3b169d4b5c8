"""Windows, histograms and the common matrix: values map back, and nothing is stretched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medvar_engine.data.harmonise import (
    CT_WINDOWS,
    REGION_WINDOW,
    ValueRange,
    clip_mr,
    fit_to_matrix,
    mr_foreground,
    window_ct,
)
from medvar_engine.errors import MedvarError


@settings(deadline=None)
@given(
    st.floats(-2000, 2000), st.floats(1, 4000), st.lists(st.floats(0, 1), min_size=1, max_size=20)
)  # low, width, where inside
def test_values_map_back(low: float, width: float, inside: list[float]) -> None:
    """Breaks for whoever writes generated CT as DICOM: HU that are off."""
    values = ValueRange(low, low + width, "HU")
    hu = np.float32(low) + np.float32(width) * np.asarray(inside, dtype=np.float32)
    image = values.to_image(hu)
    assert image.dtype == np.float32
    assert image.min() >= -1
    assert image.max() <= 1
    np.testing.assert_allclose(values.to_values(image), hu, atol=1e-3 + 1e-5 * width)


def test_windows_are_the_usual_ones() -> None:
    """Breaks for radiologists, who know these by heart."""
    image, values = window_ct(np.float32([-1000, -160, 40, 240, 3000]), "soft_tissue")
    assert image.tolist() == [-1, -1, 0, 1, 1]
    assert (values.low, values.high, values.unit) == (-160, 240, "HU")
    assert set(REGION_WINDOW.values()) <= set(CT_WINDOWS)
    assert window_ct(np.float32([0]), low=-10, high=10)[0].tolist() == [0]


@pytest.mark.parametrize(
    "options", [{"window": "fog"}, {"low": 1.0}, {"low": 2.0, "high": 1.0}, {"window": "bone", "low": 0.0, "high": 1.0}]
)
def test_window_that_is_none(options: dict[str, object]) -> None:
    """Breaks for typing errors: they must be answered, not guessed."""
    with pytest.raises(MedvarError, match="window"):
        window_ct(np.zeros(3, np.float32), **options)  # type: ignore[arg-type]


def test_mr_is_clipped_by_the_volume() -> None:
    """Breaks for MR with hot pixels or large backgrounds: tissue would be squeezed into a few grey levels."""
    generator = np.random.default_rng(0)
    volume = generator.uniform(0, 5, (40, 40, 40)).astype(np.float32)
    volume[10:20, 10:20, 10:20] = generator.normal(500, 50, (10, 10, 10))
    volume[0, 0, 0] = 1e5
    image, values = clip_mr(volume)
    assert values.unit == "arbitrary"
    assert 350 < values.low < 400
    assert 600 < values.high < 700
    assert 5 < mr_foreground(volume) < 60
    assert image[15, 15, 15] == pytest.approx((volume[15, 15, 15] - values.low) / (values.high - values.low) * 2 - 1)
    # One range for the volume: a dark slice stays dark.
    assert (image[:, :, 30] == -1).all()


def test_blank_mr_is_refused() -> None:
    """Breaks for empty scans: a division by zero would fill shards with NaN."""
    with pytest.raises(MedvarError, match="blank"):
        clip_mr(np.full((4, 4, 4), 7, np.float32))


@settings(deadline=None)
@given(
    st.integers(8, 90), st.integers(8, 90), st.floats(0.3, 5), st.floats(0.3, 5), st.integers(16, 96), st.floats(-1, 1)
)
def test_fit_keeps_range_and_aspect(
    height: int, width: int, row_mm: float, column_mm: float, size: int, value: float
) -> None:
    """Breaks for any scan of odd shape: pixels must be square, the field of view whole, and the padding air."""
    assume(0.1 < height * row_mm / (width * column_mm) < 10)
    fitted, pixel = fit_to_matrix(np.full((height, width), value, np.float32), (row_mm, column_mm), size)
    assert fitted.shape == (size, size)
    assert fitted.dtype == np.float32
    assert pixel * size == pytest.approx(max(height * row_mm, width * column_mm))
    filled = np.abs(fitted - np.float32(value)) < 1e-5
    if value > -0.99:
        assert filled.any(axis=1).sum() == pytest.approx(height * row_mm / pixel, abs=1.01)
        assert filled.any(axis=0).sum() == pytest.approx(width * column_mm / pixel, abs=1.01)
        assert (fitted[~filled] == -1).all()


def test_a_circle_stays_a_circle() -> None:
    """Breaks for anisotropic slices: round vertebrae become ovals."""
    rows, columns = np.meshgrid(np.arange(60) * 2.0, np.arange(120) * 1.0, indexing="ij")
    disc = np.where((rows - 59) ** 2 + (columns - 59.5) ** 2 < 40**2, 1, -1).astype(np.float32)
    fitted, pixel = fit_to_matrix(disc, (2.0, 1.0), 96)
    assert pixel == pytest.approx(1.25)
    inside = fitted > 0
    tall, wide = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert abs(int(tall) - int(wide)) <= 1
    assert tall == pytest.approx(80 / 1.25, abs=2)
    middle = np.argwhere(inside).mean(axis=0)
    assert middle == pytest.approx([47.5, 47.5], abs=0.5)


def test_shrinking_does_not_alias() -> None:
    """Breaks for large matrices: fine stripes would turn into coarse ones."""
    stripes = np.where(np.arange(512) % 2, 1, -1).astype(np.float32)[:, np.newaxis].repeat(512, axis=1)
    fitted, _ = fit_to_matrix(stripes, (1.0, 1.0), 96)
    assert float(np.abs(fitted[4:-4, 4:-4]).max()) < 0.1


def test_same_size_is_unchanged() -> None:
    """Breaks for data already at the model's size: it must not be blurred."""
    image = np.random.default_rng(0).uniform(-1, 1, (64, 64)).astype(np.float32)
    np.testing.assert_allclose(fit_to_matrix(image, (0.7, 0.7), 64)[0], image, atol=1e-6)
