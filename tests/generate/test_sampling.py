from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from medvar_engine.errors import MedvarError
from medvar_engine.generate.sampling import candidates, draw, entropy, guide, guide_away, gumbel, log_softmax
from medvar_engine.request import MAX_SEED, Sampling
from medvar_engine.types import FloatArray

seeds = st.integers(0, MAX_SEED)
scales = st.integers(0, 9)
logit_rows = st.integers(1, 40).flatmap(
    lambda vocabulary: arrays(
        np.float32, (3, vocabulary), elements=st.floats(-8, 8, width=16), unique=True, fill=st.nothing()
    )
)


@given(seeds, scales, st.integers(1, 6), st.integers(1, 50))
def test_noise_depends_on_its_position_only(seed: int, k: int, positions: int, vocabulary: int) -> None:
    """The same seed would give another image at another size of a batch or a schedule."""
    noise = gumbel(seed, k, positions, vocabulary)
    assert noise.shape == (positions, vocabulary)
    assert noise.dtype == np.float32
    assert np.isfinite(noise).all()
    for fewer in range(1, positions):
        np.testing.assert_array_equal(gumbel(seed, k, fewer, vocabulary), noise[:fewer])


def test_noise_is_the_same_on_every_machine_and_version() -> None:
    """Seeds that people have published would give other images after an update."""
    assert gumbel(7, 3, 1, 3)[0].tolist() == pytest.approx([0.4369041, 0.3153350, -0.2024386], abs=1e-6)
    assert gumbel(MAX_SEED, 9, 1, 1)[0].tolist() == pytest.approx([0.8377053], abs=1e-6)


def test_seeds_and_scales_have_different_noise() -> None:
    """Candidates of different seeds would look alike; or one scale's choices would repeat in the next."""
    noises = [gumbel(seed, k, 64, 64).ravel() for seed in (0, 1, 2, 2**32, 2**63) for k in (0, 1)]
    correlation = np.corrcoef(noises) - np.eye(len(noises))
    assert np.abs(correlation).max() < 5 / math.sqrt(64 * 64)


def test_noise_is_gumbel() -> None:
    """Images would be drawn from another distribution than the model's."""
    noise = gumbel(1, 0, 500, 400).astype(np.float64).ravel()
    count = noise.size
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=5 * math.pi / math.sqrt(6 * count))
    assert noise.var() == pytest.approx(math.pi**2 / 6, rel=0.02)
    assert stats.kstest(noise, stats.gumbel_r.cdf).pvalue > 1e-3


def test_tokens_are_drawn_as_often_as_the_model_says() -> None:
    """Images would be drawn from another distribution than the model's."""
    logits = np.array([2.0, 1.0, 0.0, -1.0, -3.0], dtype=np.float32)
    for temperature in (1.0, 0.5):
        drawn = draw(np.tile(logits, (40_000, 1)), Sampling(temperature=temperature, top_p=1), seed=3, k=2)
        weights = np.exp(logits.astype(np.float64) / temperature)
        expected = weights / weights.sum() * len(drawn)
        assert stats.chisquare(np.bincount(drawn, minlength=5), expected).pvalue > 1e-3


@given(logit_rows, seeds, scales)
def test_temperature_zero_takes_the_likeliest(logits: FloatArray, seed: int, k: int) -> None:
    """Somebody who asks for no randomness would get some."""
    np.testing.assert_array_equal(draw(logits, Sampling(temperature=0), seed, k), logits.argmax(-1))
    np.testing.assert_array_equal(draw(logits, Sampling(top_k=1), seed, k), logits.argmax(-1))
    np.testing.assert_array_equal(draw(logits, Sampling(top_p=1e-6), seed, k), logits.argmax(-1))


def slow_candidates(row: FloatArray, top_k: int, top_p: float) -> list[int]:
    """Top-k, then top-p among what is left, one token at a time."""
    order = sorted(range(len(row)), key=lambda token: -row[token])
    order = order[: top_k or len(order)]
    weights = [math.exp(float(row[token])) for token in order]
    kept, mass = [], 0.0
    for token, weight in zip(order, weights, strict=True):
        if kept and mass >= top_p * sum(weights):
            break
        kept.append(token)
        mass += weight
    return kept


@given(logit_rows, st.integers(0, 45), st.floats(0.05, 1))
def test_top_k_and_top_p_keep_the_right_tokens(logits: FloatArray, top_k: int, top_p: float) -> None:
    """Unlikely tokens would slip in (speckle), or likely ones be lost (monotony)."""
    tokens, values = candidates(logits, top_k, top_p)
    for row, found, value in zip(logits, tokens, values, strict=True):
        kept = found[np.isfinite(value)].tolist()
        expected = slow_candidates(row, top_k, top_p)
        shorter, longer = sorted((kept, expected), key=len)
        assert longer[: len(shorter)] == shorter
        # Rounding may decide whether tokens on the edge of top_p stay; if top_p is nearly 1, these can be several.
        assert all(_on_edge(row, top_k, top_p, count) for count in range(len(shorter), len(longer)))
        np.testing.assert_array_equal(row[kept], value[np.isfinite(value)])
        assert (np.diff(value[np.isfinite(value)]) <= 0).all()


def _on_edge(row: FloatArray, top_k: int, top_p: float, count: int) -> bool:
    order = np.sort(row.astype(np.float64))[::-1][: top_k or None]
    share = np.exp(order) / np.exp(order).sum()
    return bool(abs(share[:count].sum() - top_p) < 1e-5)


@given(logit_rows, st.integers(0, 9), st.floats(0.05, 1), seeds)
def test_only_candidates_are_drawn(logits: FloatArray, top_k: int, top_p: float, seed: int) -> None:
    """Top-k and top-p would be mere decoration."""
    drawn = draw(logits, Sampling(top_k=top_k, top_p=top_p), seed, 0)
    tokens, values = candidates(logits, top_k, top_p)
    for token, found, value in zip(drawn, tokens, values, strict=True):
        assert token in found[np.isfinite(value)]


@given(logit_rows)
def test_entropy_agrees_with_scipy(logits: FloatArray) -> None:
    """The map of uncertainty would show something else."""
    probability = np.exp(logits.astype(np.float64))
    expected = stats.entropy(probability, base=2, axis=-1)
    np.testing.assert_allclose(entropy(logits), expected, atol=2e-4)


def test_entropy_of_certain_and_uniform_distributions() -> None:
    """Impossible tokens (-inf) would make the map of uncertainty NaN; large logits would overflow."""
    assert entropy(np.zeros((1, 1024), dtype=np.float32)) == pytest.approx(10)
    assert entropy(np.array([[1e4, 0, -1e4]], dtype=np.float32)) == 0
    np.testing.assert_allclose(np.exp(log_softmax(np.array([1e30, 1e30], dtype=np.float32))), 0.5)


@given(logit_rows, st.floats(0, 20, width=16))
def test_guidance_follows_its_formula(logits: FloatArray, strength: float) -> None:
    """A strength that people know from papers would do something else here."""
    conditional, unconditional = logits[0], logits[1]
    np.testing.assert_array_equal(guide(conditional, unconditional, 0), conditional)
    np.testing.assert_allclose(guide(conditional, conditional, strength), conditional, atol=1e-4, rtol=1e-4)
    expected = conditional + np.float64(strength) * (conditional.astype(np.float64) - unconditional)
    np.testing.assert_allclose(guide(conditional, unconditional, strength), expected, atol=1e-4, rtol=1e-4)


def test_guidance_away_from_a_weaker_model_favours_no_implausible_token() -> None:
    """Speckles would appear where both models find a token improbable, the weaker one even more."""
    conditional = np.log(np.array([[0.6, 0.3, 0.09, 0.01 - 1e-5, 1e-5]], dtype=np.float32))
    weaker = np.log(np.array([[0.6, 0.3, 0.0999, 1e-4, 1e-9]], dtype=np.float32))
    guided = guide_away(conditional, weaker, 2.0)
    np.testing.assert_allclose(guided[:, :3], guide(conditional, weaker, 2.0)[:, :3], rtol=1e-6)
    probability = np.exp(log_softmax(guided))[0]
    assert probability[3:].max() < 1e-5  # at 0.017 and less of the likeliest one
    assert probability[3] > probability[4] > 0
    assert np.isfinite(guided).all()
    assert np.exp(log_softmax(guided / 3))[0, 3:].max() < 1e-6  # also at a high temperature
    same = guide_away(conditional, conditional, 2.0)
    np.testing.assert_allclose(same[:, :3], conditional[:, :3], atol=1e-5)


def test_guidance_rises_from_a_share_to_its_value() -> None:
    """Coarse scales would lose their variety to guidance, or fine ones get too little of it."""

    def rise(share: float, scales: int = 4) -> list[float]:
        return [Sampling(1.5, coarse_guidance=share).at(k, scales).guidance for k in range(scales)]

    assert rise(0.0) == [1.5 * k / 3 for k in range(4)]  # exactly, or images of before could not be made again
    assert rise(1 / 3) == pytest.approx([0.5, 0.5 + 1 / 3, 0.5 + 2 / 3, 1.5])
    assert rise(1.0) == [1.5] * 4
    assert rise(0.0, 1) == [0]
    assert rise(1.0, 1) == [1.5]


def test_top_p_rises_from_a_share_to_its_value() -> None:
    """Coarse scales would draw tokens that do not belong together, or fine ones too few."""

    def rise(share: float, scales: int = 4) -> list[float]:
        return [Sampling(top_p=0.9, coarse_top_p=share).at(k, scales).top_p for k in range(scales)]

    assert rise(1.0) == [0.9] * 4  # exactly, or images of before could not be made again
    assert rise(2 / 3) == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert rise(0.5, 1) == [0.45]
    scale = Sampling(2.0, 0.8, 50, 0.9, 0.5, 0.5).at(0, 4)
    assert (scale.temperature, scale.top_k) == (0.8, 50)
    assert scale.at(2, 4) == scale  # the settings of one scale are the same at every scale


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_sampling_can_be_read_again(share: float) -> None:
    """An image could not be made again."""
    sampling = Sampling(guidance=2, coarse_guidance=share, coarse_top_p=1 - share / 2)
    assert Sampling.from_dict(sampling.to_dict()) == sampling


def test_files_of_before_keep_their_meaning_and_their_digest() -> None:
    """Bundles and traces of before would be drawn with other guidance, or have another digest."""
    before = {"guidance": 2.0, "temperature": 1.0, "top_k": 0, "top_p": 0.96}
    rising, even = Sampling.from_dict(before), Sampling.from_dict({**before, "even_guidance": True})
    assert (rising.coarse_guidance, even.coarse_guidance) == (0.0, 1.0)
    assert Sampling.from_dict({**before, "even_guidance": False}) == rising
    assert rising.to_dict() == before
    assert even.to_dict() == {**before, "even_guidance": True}
    with pytest.raises(MedvarError, match="even_guidance must be true or false, but is 'yes'"):
        Sampling.from_dict({**before, "even_guidance": "yes"})
    with pytest.raises(MedvarError, match="not both"):
        Sampling.from_dict({**before, "even_guidance": True, "coarse_guidance": 0.5})


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_settings_of_a_bundle_can_be_changed_by_those_of_a_request(share: float) -> None:
    """A server would draw with other settings than it was asked for."""
    default = Sampling(guidance=2, top_p=0.9, coarse_guidance=share)
    assert default.updated({}) == default
    assert default.updated({"coarse_guidance": 0.3}) == Sampling(2, top_p=0.9, coarse_guidance=0.3)
    assert default.updated({"coarse_guidance": 0}).coarse_guidance == 0
    assert default.updated({"even_guidance": False}).coarse_guidance == 0
    assert default.updated({"even_guidance": True}).coarse_guidance == 1
    with pytest.raises(MedvarError, match="coarse_guidance must be"):
        default.updated({"coarse_guidance": 3})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guidance", -0.1),
        ("guidance", math.nan),
        ("guidance", math.inf),
        ("coarse_guidance", -0.1),
        ("coarse_guidance", 1.5),
        ("coarse_guidance", math.nan),
        ("coarse_top_p", 0.0),
        ("coarse_top_p", 1.5),
        ("temperature", -1.0),
        ("temperature", 1e-9),
        ("top_k", -1),
        ("top_k", 0.5),
        ("top_p", 0.0),
        ("top_p", 1.1),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: float) -> None:
    """A wrong setting would show as a strange image, or as an error deep inside."""
    with pytest.raises(MedvarError, match=f"{name} must be"):
        Sampling(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(MedvarError, match="seed"):
        gumbel(2**64, 0, 1, 1)


def test_the_coldest_temperature_does_not_overflow() -> None:
    """Very cold sampling would give NaN, and with it the first token everywhere."""
    logits = np.array([[-900.0, -800.0, -850.0]], dtype=np.float32)
    assert draw(logits, Sampling(temperature=1e-3), 0, 0).tolist() == [1]
