"""Noise that explains a real image: under its own condition it gives the image back, under another one a variant."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvar_engine.backends.base import Backend
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.inversion import posterior_noise
from medvar_engine.generate.sampling import candidates, log_softmax
from medvar_engine.generate.trace import Request, Resample, Trace
from medvar_engine.request import Sampling
from medvar_engine.types import IntArray

BRAIN, CHEST = Condition("MR", "brain", "axial"), Condition("CT", "chest", "axial")
SIZE = 16


@pytest.fixture
def real(generator: Generator) -> Trace:
    """An image that no model has drawn."""
    image = np.random.default_rng(0).uniform(-1, 1, (1, SIZE, SIZE)).astype(np.float32)
    return generator.encode(image, [Request(BRAIN, 5, Sampling(guidance=2, top_k=4, top_p=0.7))]).trace(0)


def redrawn(tokens: IntArray, logits: np.ndarray, noise: np.ndarray, sampling: Sampling) -> IntArray:
    """Gumbel-max over what top-k and top-p leave and the tokens themselves, spelt out."""
    scaled = logits / sampling.temperature
    values = np.full(logits.shape, -np.inf)
    kept, left = candidates(scaled.astype(np.float32), sampling.top_k, sampling.top_p)
    np.put_along_axis(values, kept, left, -1)
    rows = np.arange(len(tokens))
    values[rows, tokens] = scaled[rows, tokens]
    return (values + noise).argmax(-1)


@given(
    seed=st.integers(0, 2**64 - 1),
    spread=st.sampled_from([0.0, 0.1, 3.0, 50.0]),
    sampling=st.builds(
        Sampling,
        temperature=st.sampled_from([1e-3, 0.3, 1.0, 100.0]),
        top_k=st.integers(0, 12),
        top_p=st.floats(0.01, 1),
    ),
)
def test_noise_explains_any_tokens(seed: int, spread: float, sampling: Sampling) -> None:
    """A real image, some of whose tokens the model would never draw, would come back as another one."""
    rng = np.random.default_rng(seed)
    logits = (spread * rng.standard_normal((7, 10))).astype(np.float32)
    tokens = rng.integers(0, 10, 7)
    noise = posterior_noise(logits, tokens, sampling, seed, 2)
    assert np.isfinite(noise).all()
    np.testing.assert_array_equal(redrawn(tokens, logits, noise, sampling), tokens)


def test_noise_of_drawn_tokens_is_gumbel() -> None:
    """Noise of another kind would draw other images than the model does: too typical ones, or too strange."""
    rng = np.random.default_rng(0)
    logits = (2 * rng.standard_normal((20_000, 5))).astype(np.float32)
    shares = np.exp(log_softmax(logits)).cumsum(-1)
    tokens = np.minimum((rng.random((len(logits), 1)) > shares).sum(-1), 4)
    noise = posterior_noise(logits, tokens, Sampling(top_p=1), 0, 0)
    below = np.exp(-np.exp(-noise))  # uniform if the noise is standard Gumbel
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        np.testing.assert_allclose((below < share).mean(axis=0), share, atol=0.015)
    assert abs(np.corrcoef(noise.T) - np.eye(5)).max() < 0.03


@pytest.mark.parametrize("k", [0, 2])
def test_its_own_condition_gives_the_image_back(generator: Generator, real: Trace, k: int) -> None:
    """An edit of a real image would begin by losing it."""
    inversion = generator.invert(real)
    again = generator.finish(generator.resample(real, k, inversion=inversion))
    assert again.pyramid == real.pyramid
    assert generator.finish(generator.resample(real, k)).pyramid != real.pyramid  # the seed alone does not
    assert np.array_equal(generator.invert(real).noise[3], inversion.noise[3])
    assert not np.array_equal(generator.invert(real, seed=6).noise[3], inversion.noise[3])


def test_another_condition_keeps_more_than_a_new_image(generator: Generator, real: Trace) -> None:
    """Drawing a real image under another condition would be no better than drawing a new one."""
    shared = []
    for inversion in (generator.invert(real), None):
        variants = [
            generator.finish(generator.resample(real, 0, condition=CHEST, seed=seed, inversion=inversion))
            for seed in range(1 if inversion else 20)
        ]
        shared.append(np.mean([v.pyramid.sequence == real.pyramid.sequence for v in variants]))
    assert shared[0] > 2 * shared[1]
    assert shared[0] < 1


def test_a_cancelled_inversion_continues_from_its_file(tiny_backend: Backend, real: Trace) -> None:
    """After a crash the rest would be drawn with other noise; or the file would hold megabytes of it."""
    generator = Generator(tiny_backend)
    inversion = generator.invert(real, condition=Condition("MR"), sampling=Sampling(guidance=1), seed=9)
    start = generator.resample(real, 1, condition=CHEST, inversion=inversion, keep=(2,))
    text = generator.step(start).trace(0).to_json()
    half = Trace.from_json(text)
    assert isinstance(half.edit, Resample)
    assert half.edit.inverted == Request(Condition("MR"), 9, Sampling(guidance=1))
    fresh = Generator(tiny_backend)
    finished = generator.finish(start)
    assert fresh.finish(fresh.restore([half])).pyramid == finished.pyramid
    assert half.parent is not None
    assert fresh.finish(fresh.edit(half.parent, half.edit)).complete
    assert len(text) < 10_000


def test_says_what_cannot_be_inverted(generator: Generator, real: Trace) -> None:
    """Somebody in a script would see a traceback, or draw with noise of another image."""
    with pytest.raises(MedvarError, match="finished image"):
        generator.invert(changed(real, pyramid=real.pyramid.prefix(2)))
    with pytest.raises(MedvarError, match="temperature 0"):
        generator.invert(real, sampling=Sampling(temperature=0))
    with pytest.raises(MedvarError, match="mean 'brain'"):
        generator.invert(real, condition=Condition(region="brian"))
    other = generator.finish(generator.start([Request(CHEST)]))
    with pytest.raises(MedvarError, match="belongs to another image"):
        generator.resample(real, 1, inversion=generator.invert(other))
    with pytest.raises(MedvarError, match="One image"):
        generator.invert(generator.restore([real, real]))
    likeliest = generator.resample(real, 0, sampling=Sampling(temperature=0), inversion=generator.invert(real))
    plain = generator.resample(real, 0, sampling=Sampling(temperature=0))
    assert generator.finish(likeliest).pyramid == generator.finish(plain).pyramid
