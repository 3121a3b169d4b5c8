"""One row of figures: what it holds for good images, for bad ones, and for too few."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics import metric_table
from medvar_engine.evaluate.metrics.bootstrap import estimate_mean
from medvar_engine.evaluate.metrics.feature_rows import FeatureRows
from medvar_engine.evaluate.metrics.frechet import sample_size_bias
from medvar_engine.evaluate.metrics.metric_table import BETTER, MetricValue, Reference, row


def features(count: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 8)) + shift).astype(np.float32)


def groups(count: int) -> list[str]:
    return [str(i) for i in range(count)]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of(features(200, seed=1), features(60, seed=2), [f"person {i // 10}" for i in range(200)])


@pytest.fixture(scope="module")
def good(reference: Reference) -> dict[str, MetricValue]:
    return row(features(80, seed=3), groups(80), reference)


def test_a_row_has_every_metric_as_json(good: dict[str, MetricValue]) -> None:
    """A report that lacks a figure, or that JSON cannot hold, would be found out after hours of encoding."""
    assert list(good) == list(BETTER)
    again = json.loads(json.dumps({name: one.to_dict() for name, one in good.items()}, allow_nan=False))
    assert again["frechet"]["value"] == good["frechet"].value
    assert all(one.images == 80 and not one.missing for one in good.values())


def test_an_interval_contains_its_value(good: dict[str, MetricValue]) -> None:
    """A distance outside of its own interval: nobody could tell which of the two to believe."""
    for name, one in good.items():
        assert one.value is not None
        assert one.low is not None, (name, one.no_interval)
        assert one.high is not None
        assert one.low < one.value < one.high, name
        assert one.over == ("training patients" if name in ("recall", "coverage") else "images")
        assert not one.no_interval


def test_more_images_give_narrower_intervals(reference: Reference) -> None:
    """An interval that does not shrink is not one: a set of ten would seem as well known as one of a thousand."""
    widths = []
    for count in (40, 1000):
        found = row(features(count, seed=3), groups(count), reference)
        widths.append({name: (one.high or 0) - (one.low or 0) for name, one in found.items()})
    for name in BETTER:
        if name not in ("recall", "coverage", "copying"):  # of slices; a rank score grows with its certainty
            assert widths[1][name] < 0.6 * widths[0][name], name


def test_fewer_patients_give_wider_intervals(reference: Reference) -> None:
    """Slices of one patient are alike: drawn one by one they would seem to be of as many patients."""
    made = np.repeat(features(20, seed=3), 4, axis=0)
    alone = row(made, groups(80), reference)
    together = row(made, [str(i // 4) for i in range(80)], reference, over="patients")
    for name in ("frechet", "cmmd", "kid", "precision", "authentic"):
        narrow, wide = ((one[name].high or 0) - (one[name].low or 0) for one in (alone, together))
        assert wide > 1.4 * narrow, name
        assert together[name].value == alone[name].value
        assert together[name].over == "patients"


def test_a_missing_interval_has_a_reason(reference: Reference) -> None:
    """An empty place beside a figure would be taken for a mistake, and no width at all for certainty."""
    one = row(features(80, seed=3), ["ann"] * 80, reference, over="patients")
    assert one["kid"].value is not None
    assert one["kid"].low is None
    assert one["kid"].no_interval == "fewer than two patients to resample"
    far = row(features(80, 50.0, seed=3), groups(80), reference)["precision"]
    assert (far.value, far.low, far.no_interval) == (0.0, None, "the same in every draw")


def test_memory_does_not_grow_with_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand images would need the memory of all their features, and of 200 draws of them."""
    monkeypatch.setattr(metric_table, "LARGEST", 40)
    monkeypatch.setattr(metric_table, "DRAWS", 3)
    peaks, sizes = [], (10_000, 40_000)
    for count in sizes:
        wide = np.random.default_rng(0).standard_normal((count, 128), dtype=np.float32)
        names, reference = groups(count), Reference.of(wide[:300], wide[:300], groups(300))
        tracemalloc.start()
        row(FeatureRows(wide, np.arange(count)), names, reference)
        estimate_mean(wide[:, 0], names)
        sample_size_bias(wide, reference.training_moments)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / (sizes[1] - sizes[0]) < 400  # bytes an image; its features alone have 512


def test_worse_images_get_worse_metrics(good: dict[str, MetricValue], reference: Reference) -> None:
    """A figure turned round would praise the worst model."""
    bad = row(features(80, 2.0, seed=3), groups(80), reference)
    for name, way in BETTER.items():
        if way in ("lower", "higher"):
            ours, theirs = good[name].value, bad[name].value
            assert ours is not None
            assert theirs is not None
            assert (ours < theirs) == (way == "lower"), name


def test_rows_are_reproducible(good: dict[str, MetricValue], reference: Reference) -> None:
    """Two reports of the same images would differ."""
    assert row(features(80, seed=3), groups(80), reference) == good


def test_too_few_images_give_reasons_instead_of_values(reference: Reference) -> None:
    """A label of three images would get shares that mean nothing."""
    few = row(features(3), groups(3), reference)
    assert few["frechet"].value is not None
    assert "more than 5" in few["precision"].missing
    assert few["coverage"].value is None
    one = row(features(1), groups(1), reference)
    assert "at least 2" in one["frechet"].missing
    assert "at least 2" in one["kid"].missing


def test_features_that_are_not_finite_give_no_values(reference: Reference) -> None:
    """One NaN would pass for an image that lies nowhere, and change every share a little without a word."""
    broken = features(80)
    broken[3, 2] = np.nan
    for one in row(broken, groups(80), reference).values():
        assert one.value is None
        assert "not finite" in one.missing


def test_an_encoder_with_constant_features_is_reported() -> None:
    """A dead encoder would report copies, or that nothing is real."""
    dead = Reference.of(*(np.full((count, 8), 1000.1, np.float32) for count in (60, 30)), groups(60))
    found = row(np.full((40, 8), 1000.1, np.float32), groups(40), dead)
    assert found["frechet"].value == 0
    assert found["kid"].value == 0
    for name in ("precision", "recall", "density", "coverage", "authentic", "copying"):
        assert "the same" in found[name].missing, name


def test_groups_of_other_images_are_refused(reference: Reference) -> None:
    """The figure would silently be that of the first few images."""
    with pytest.raises(MedvarError, match="80 images and 3 groups"):
        row(features(80), groups(3), reference)
