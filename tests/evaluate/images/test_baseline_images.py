"""The images whose worth is known: what they are, and that every distance ranks them rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.descriptor import DescriptorEncoder
from medvar_engine.encoders.feature_cache import cached_features
from medvar_engine.encoders.image_source import Images, PreparedImages
from medvar_engine.evaluate.images.baseline_images import KEPT, baselines
from medvar_engine.evaluate.metrics.metric_table import MetricValue, Reference, row


@pytest.fixture(scope="module")
def made(held_out: SliceDataset) -> dict[str, Images]:
    return baselines(PreparedImages(held_out))


@pytest.fixture(scope="module")
def rows(
    made: dict[str, Images], training: SliceDataset, held_out: SliceDataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, MetricValue]]:
    folder: Path = tmp_path_factory.mktemp("features")
    encoder = DescriptorEncoder()
    sides = [cached_features(encoder, PreparedImages(side), folder) for side in (training, held_out)]
    people = [one.patient for one in held_out.rows]
    reference = Reference.of(sides[0], sides[1], [one.patient for one in training.rows])
    return {name: row(cached_features(encoder, one, folder), people, reference) for name, one in made.items()}


@pytest.mark.parametrize("distance", ["frechet", "kid", "cmmd"])
def test_distances_rank_the_baselines(rows: dict[str, dict[str, MetricValue]], distance: str) -> None:
    """A distance by which blurred slices are better than real ones judges models the wrong way round."""
    values = {name: row[distance].value for name, row in rows.items()}
    real, blurred, noise = (values[name] for name in ("real, other people", "real, blurred", "noise"))
    assert real is not None
    assert blurred is not None
    assert noise is not None
    assert real < blurred < noise
    repeated = values["four real images, repeated"]
    assert repeated is not None
    assert real < repeated


def test_recall_detects_mode_collapse(rows: dict[str, dict[str, MetricValue]]) -> None:
    """Four perfect images would pass for a model."""
    collapsed, real = (rows[name]["coverage"].value for name in ("four real images, repeated", "real, other people"))
    assert collapsed is not None
    assert real is not None
    assert collapsed < real / 2


def test_baselines_have_the_size_of_the_source_and_do_not_depend_on_batches(made: dict[str, Images]) -> None:
    """Features that are kept from a stopped run would be of other images than those of the next."""
    assert len({one.digest for one in made.values()}) == len(made)
    assert len({len(one) for one in made.values()}) == 1
    for name, one in made.items():
        whole = one.batch(range(len(one)))
        np.testing.assert_array_equal(np.stack([one.batch([i])[0] for i in range(len(one))]), whole, err_msg=name)
        assert whole.dtype == np.float32
        assert np.abs(whole).max() <= 1


def test_the_collapsed_baseline_has_few_images(made: dict[str, Images]) -> None:
    """The planted collapse would be as varied as the slices, and the ranking would test nothing."""
    one = made["four real images, repeated"]
    assert len(np.unique(one.batch(range(len(one))), axis=0)) == KEPT
