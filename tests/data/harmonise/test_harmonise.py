"""Windows, histograms and the common matrix: values map back, and nothing is stretched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medvar_engine.data.harmonise import harmonise as harmonising
from medvar_engine.data.harmonise.harmonise import harmonise, treat_face
from medvar_engine.data.harmonise.intensity import (
    CT_WINDOWS,
    REGION_WINDOW,
    ValueRange,
    ct_window,
    mr_foreground,
    mr_range,
)
from medvar_engine.data.harmonise.matrix import fit_to_matrix, resample
from medvar_engine.data.harmonise.percentiles import RankedValues
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError


def volume_of(array: np.ndarray) -> Volume:
    return Volume(array.astype(np.float32), np.eye(4), (1.0, 1.0, 1.0), None, None, "s", Path("x"))


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
    values = ct_window("soft_tissue")
    assert values.to_image(np.float32([-1000, -160, 40, 240, 3000])).tolist() == [-1, -1, 0, 1, 1]
    assert (values.low, values.high, values.unit) == (-160, 240, "HU")
    assert {str(window) for window in REGION_WINDOW.values()} <= set(CT_WINDOWS)
    assert ct_window((-10, 10)).to_image(np.float32([0])).tolist() == [0]


@pytest.mark.parametrize(
    "window", ["fog", (1.0,), (2.0, 1.0), (1.0, 1.0), (0.0, float("nan")), ("low", "high"), 40, None]
)
def test_invalid_windows_are_refused(window: Any) -> None:
    """Breaks for typing errors: they must be answered, not guessed."""
    with pytest.raises(MedvarError, match="window"):
        ct_window(window)


def test_the_recipe_selects_the_window() -> None:
    """Breaks for whoever overrides a window: the nearest word must win, region before all regions before the usual."""
    air = volume_of(np.full((4, 4, 4), -1000))
    shown = {
        region: harmonise(air, "CT", region, Recipe(window="bone", windows={"chest": (-1200, 300)})).values
        for region in ("chest", "abdomen", "knee")
    }
    assert shown == {
        "chest": ValueRange(-1200, 300, "HU"),
        "abdomen": ValueRange(-500, 1300, "HU"),
        "knee": ValueRange(-500, 1300, "HU"),
    }
    assert harmonise(air, "CT", "brain", Recipe()).values == ValueRange(0, 80, "HU")
    assert harmonise(air, "CT", "knee", Recipe()).values == ValueRange(-160, 240, "HU")


def test_the_recipe_selects_the_percentiles() -> None:
    """Breaks for whoever wants more contrast in MR: the numbers asked for must be the ones used, on tissue alone."""
    values = np.zeros((20, 20, 20), np.float32)
    values[5:15, 5:15, 5:15] = np.linspace(1000, 2000, 1000).reshape(10, 10, 10)
    scan = harmonise(volume_of(values), "MR", "brain", Recipe(mr_percentiles=(10, 90)))
    assert (scan.values.low, scan.values.high) == pytest.approx((1100, 1900), abs=2)
    assert 0 < scan.foreground < 1000


def test_mr_is_clipped_by_the_volume() -> None:
    """Breaks for MR with hot pixels or large backgrounds: tissue would be squeezed into a few grey levels."""
    generator = np.random.default_rng(0)
    volume = generator.uniform(0, 5, (40, 40, 40)).astype(np.float32)
    volume[10:20, 10:20, 10:20] = generator.normal(500, 50, (10, 10, 10))
    volume[0, 0, 0] = 1e5
    ranked = RankedValues(volume)
    values = mr_range(ranked, mr_foreground(ranked))
    image = values.to_image(volume)
    assert values.unit == "arbitrary"
    assert 350 < values.low < 400
    assert 600 < values.high < 700
    assert 5 < mr_foreground(ranked) < 60
    assert image[15, 15, 15] == pytest.approx((volume[15, 15, 15] - values.low) / (values.high - values.low) * 2 - 1)
    # One range for the volume: a dark slice stays dark.
    assert (image[:, :, 30] == -1).all()


def test_blank_mr_is_refused() -> None:
    """Breaks for empty scans: a division by zero would fill shards with NaN."""
    with pytest.raises(MedvarError, match="blank"):
        mr_range(RankedValues(np.full((4, 4, 4), 7, np.float32)), 7.0)


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


def test_stated_pixel_size_cuts_and_pads() -> None:
    """Breaks for comparing sizes between people: with spacing_mm a centimetre is as many pixels in every image."""
    rows, columns = np.meshgrid(np.arange(100) * 2.0, np.arange(300) * 1.0, indexing="ij")
    disc = np.where((rows - 99) ** 2 + (columns - 149.5) ** 2 < 40**2, 1, 0).astype(np.float32)
    (fitted,) = resample(disc[np.newaxis], (2.0, 1.0), 1.6, 128, padding=-0.5)
    assert fitted.shape == (128, 128)
    inside = fitted > 0.5
    assert inside.any(axis=1).sum() == pytest.approx(80 / 1.6, abs=2)
    assert inside.any(axis=0).sum() == pytest.approx(80 / 1.6, abs=2)
    assert np.argwhere(inside).mean(axis=0) == pytest.approx([63.5, 63.5], abs=0.5)
    # 200 mm of rows are 125 pixels, so three are padding; 300 mm of columns are cut.
    assert (fitted == -0.5).all(axis=1).sum() == pytest.approx(3, abs=1)
    assert not (fitted == -0.5).all(axis=0).any()


def test_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for people who could be recognised: crop must leave nothing of the face, skip nothing of the scan."""
    face = np.zeros((8, 8, 8), bool)
    face[:, 6:, :4] = True
    monkeypatch.setattr(harmonising, "face_region", lambda volume: face)
    head = volume_of(np.random.default_rng(0).uniform(10, 100, (8, 8, 8)))
    kept, remark = treat_face(head, "brain", "keep")
    assert kept is head
    assert "shows a face" in str(remark)
    cropped, remark = treat_face(head, "brain", "crop")
    assert remark is None
    assert np.unique(cropped.array[face]).tolist() == [head.array.min()]
    assert np.array_equal(cropped.array[~face], head.array[~face])
    with pytest.raises(MedvarError, match="face"):
        treat_face(head, "brain", "skip")
    assert treat_face(head, "abdomen", "skip") == (head, None)
    monkeypatch.setattr(harmonising, "face_region", lambda volume: None)
    assert treat_face(head, "brain", "skip") == (head, None)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 4},
        {"size": "big"},
        {"size": True},
        {"phase_step": 0},
        {"planes": ["up"]},
        {"planes": "axial"},
        {"window": "fog"},
        {"windows": {"chest": [3, 1]}},
        {"windows": "bone"},
        {"mr_percentiles": [99, 1]},
        {"mr_percentiles": 5},
        {"spacing_mm": 0},
        {"padding": -2},
        {"faces": "blur"},
        {"duplicate_bits": 1.5},
        {"min_foreground": 2},
        {"colour": "red"},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    """Breaks for typing errors in recipes: they are answered by the setting's name, before hours of reading."""
    with pytest.raises(MedvarError, match=next(iter(settings)).split("_")[0].rstrip("s")):
        Recipe.of(**settings)


def test_recipe_and_its_dictionary_mean_the_same() -> None:
    """Breaks for reproducing a data set from its manifest, and for mapping images back to HU."""
    recipe = Recipe.of(
        size=256,
        window="lung",
        windows={"knee": (0, 100)},
        spacing_mm=1.5,
        planes=["axial"],
        faces="crop",
        duplicate_bits=0,
    )
    again = Recipe.from_dict(recipe.to_dict())
    assert again.to_dict() == recipe.to_dict()
    assert again.digest() == recipe.digest()
    assert again.ct_window("knee") == ValueRange(0, 100, "HU")
    assert again.ct_window("brain") == again.ct_window("elbow") == ct_window("lung")
    assert Recipe.from_dict({}).digest() == Recipe().digest()


def test_digest_distinguishes_recipes() -> None:
    """Breaks for going on with half a data set: slices of another recipe must not be taken for these."""
    assert Recipe(window="bone").digest() == Recipe(window=(-500, 1300)).digest()
    others = [
        Recipe(),
        Recipe(size=129),
        Recipe(spacing_mm=1.0),
        Recipe(padding=0.0),
        Recipe(window="bone"),
        Recipe(windows={"brain": "bone"}),
        Recipe(mr_percentiles=(1, 99)),
        Recipe(ct_foreground_hu=-500),
        Recipe(phase_step=1),
        Recipe(faces="crop"),
        Recipe.of(duplicate_bits=0),
        Recipe.of(planes=["axial"]),
    ]
    assert len({one.digest() for one in others}) == len(others)
