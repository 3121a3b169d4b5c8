"""What the model thinks of an image, on the image grid."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest

from medvar_engine.backends.base import Backend
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.likelihood import token_map_to_image
from medvar_engine.generate.trace import Request
from medvar_engine.request import Sampling
from medvar_engine.tokens.pyramid import mask_at_scale, one_token
from medvar_engine.tokens.schedule import ScaleSchedule

BRAIN, CHEST = Condition("MR", "brain", "axial"), Condition("CT", "chest", "axial")
SIZE = 16


@pytest.mark.parametrize(("side", "size"), [(1, 16), (2, 16), (3, 16), (13, 128), (16, 16), (3, 2)])
def test_a_token_covers_its_own_pixels(side: int, size: int) -> None:
    """A map of surprise would lie beside what is surprising."""
    values = np.arange(2 * side * side, dtype=np.float32).reshape(2, side, side)
    image = token_map_to_image(values, size)
    assert image.shape == (2, size, size)
    schedule = ScaleSchedule((side,))
    for y, x in {(0, 0), (size // 2, size // 3), (size - 1, size - 1), (0, size - 1)}:
        pixel = np.zeros((size, size), dtype=np.bool_)
        pixel[y, x] = True
        row, column = divmod(int(image[0, y, x]), side)
        assert (mask_at_scale(pixel, side) & one_token(schedule, 0, row, column)).any()
        assert image[1, y, x] == image[0, y, x] + side * side


def test_anomaly_is_likelihood_below_expectation(generator: Generator) -> None:
    """A map of the image's texture would pass for a map of what is wrong with it."""
    generation = generator.finish(generator.start([Request(BRAIN, 1), Request(CHEST, 2)]))
    found = generator.anomaly_map(generation)
    assert found.shape == (2, SIZE, SIZE)
    negative_log_likelihood = generator.likelihood(generation)
    # Without guidance a scale's entropy is kept as it is drawn.
    usual = [np.zeros_like(part) for part in negative_log_likelihood]
    for i, trace in enumerate(generation.traces):
        redrawn = generator.resample(trace, 0, sampling=Sampling(guidance=0), keep=(0, 1, 2))
        for k, bits in enumerate(generator.finish(redrawn).entropy):
            usual[k][i] = bits[0]
    expected = sum(token_map_to_image(a - b, SIZE) for a, b in zip(negative_log_likelihood, usual, strict=True))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_drawn_images_are_not_anomalous(generator: Generator) -> None:
    """Healthy images would light up."""
    sampling = Sampling(guidance=0, top_p=1)
    drawn = generator.finish(generator.start([Request(BRAIN, seed, sampling) for seed in range(24)]))
    noise = np.random.default_rng(0).uniform(-1, 1, (24, SIZE, SIZE)).astype(np.float32)
    strange = generator.encode(noise, [Request(BRAIN)] * 24)
    usual, unusual = (generator.anomaly_map(g).mean(axis=(1, 2)) for g in (drawn, strange))
    assert abs(usual.mean()) < 3 * usual.std() / np.sqrt(24) + 0.1
    assert unusual.mean() > usual.mean() + 3


def test_features_are_of_the_image_alone(generator: Generator) -> None:
    """A classifier would read the answer from the condition, or other features in another batch."""
    drawn = generator.finish(generator.start([Request(BRAIN, seed) for seed in range(18)]))
    found = generator.features(drawn)
    assert found.ndim == 2
    assert len(found) == 18
    assert np.isfinite(found).all()
    assert len(np.unique(found.round(3), axis=0)) == 18
    other = [changed(trace, request=Request(CHEST, 9)) for trace in drawn.traces[3:5]]
    np.testing.assert_allclose(generator.features(generator.restore(other)), found[3:5], atol=1e-5)
    with pytest.raises(MedvarError, match="finished"):
        generator.features(generator.start([Request()]))


def test_both_backends_have_the_same_features(tiny_backend: Backend, tiny_onnx: Backend) -> None:
    """A classifier trained on features of one would be useless with the other."""
    image = np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE)).astype(np.float32)
    made = [Generator(b).features(Generator(b).encode(image, [Request()] * 2)) for b in (tiny_backend, tiny_onnx)]
    np.testing.assert_allclose(*made, atol=1e-4)
