"""The metrics, against independent implementations and against what is known beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.authenticity import authentic_share, copying_score
from medvar_engine.evaluate.metrics.bootstrap import estimate, estimate_distance, estimate_mean, group_weights
from medvar_engine.evaluate.metrics.coverage import coverage
from medvar_engine.evaluate.metrics.diversity import ms_ssim, pair_similarity
from medvar_engine.evaluate.metrics.efficiency import efficiencies
from medvar_engine.evaluate.metrics.frechet import frechet_distance, frechet_distance_to, moments, sample_size_bias
from medvar_engine.evaluate.metrics.kernel import cmmd, cmmd_draws, kernel_distance, kernel_draws


class Flat(nn.Module):
    """Images ``(N, 1, 1, D)`` are their own features, so that torchmetrics and we compare the same."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.num_features = dimension

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).double()


def features(count: int, dimension: int = 6, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, dimension)) @ rng.normal(size=(dimension, dimension))
    return (mixed + shift).astype(np.float32)


def test_frechet_distance_equals_that_of_torchmetrics() -> None:
    """A FID that no other tool gives cannot be compared with any paper."""
    real, made = features(300), features(200, shift=0.5, seed=1)
    metric = FrechetInceptionDistance(feature=Flat(6), input_img_size=(1, 1, 6), normalize=False).set_dtype(
        torch.float64
    )
    for side, is_real in ((real, True), (made, False)):
        metric.update(torch.from_numpy(side)[:, None, None], real=is_real)
    ours = frechet_distance(moments(real), moments(made))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)


def test_frechet_distance_of_known_gaussians() -> None:
    """An error that both implementations share would go unseen."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(400, 3))
    base = (base - base.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(base.T))).T  # mean 0, covariance 1, exactly
    wide = base * np.array([1.0, 2.0, 3.0]) + np.array([1.0, 0.0, -2.0])
    assert frechet_distance(moments(base), moments(wide)) == pytest.approx(5 + 0 + 1 + 4, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(1, 8), st.integers(0, 2**31))
def test_distances_do_not_depend_on_order_side_or_blocks(n: int, m: int, dimension: int, seed: int) -> None:
    """The same images in another order, or in smaller pieces, would be judged differently."""
    a, b = features(n, dimension, seed=seed), features(m, dimension, 1.0, seed=seed + 1)
    mixed = np.random.default_rng(seed).permutation(n)
    whole = frechet_distance(moments(a), moments(b))
    scale = 1 + np.trace(moments(a).covariance) + np.trace(moments(b).covariance)
    assert frechet_distance(moments(b), moments(a[mixed])) == pytest.approx(whole, abs=1e-6 * scale)
    assert frechet_distance(moments(a), moments(a)) == pytest.approx(0, abs=1e-6 * scale)
    parts = moments(a[: n // 2]) + moments(a[n // 2 :])
    np.testing.assert_allclose(parts.covariance, moments(a).covariance, rtol=1e-6, atol=1e-9 * scale)
    assert cmmd(a, b) == pytest.approx(cmmd(b, a[mixed]), abs=1e-6)
    assert cmmd(a, a) == pytest.approx(0, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(8, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_distances_do_not_depend_on_rotations_of_features(count: int, dimension: int, seed: int) -> None:
    """An encoder whose numbers mean the same in another order would judge otherwise."""
    a, b = (features(count, dimension, shift, seed + int(shift)).astype(np.float64) for shift in (0.0, 1.0))
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, dimension)))
    turned = a @ turn, b @ turn
    scale = 1 + np.trace(moments(a).covariance) + np.trace(moments(b).covariance)
    before, after = (frechet_distance(moments(x), moments(y)) for x, y in ((a, b), turned))
    assert after == pytest.approx(before, abs=1e-6 * scale)
    assert kernel_distance(*turned)[0] == pytest.approx(kernel_distance(a, b)[0], rel=1e-6, abs=1e-9 * scale**3)
    assert cmmd(*turned) == pytest.approx(cmmd(a, b), abs=1e-6)
    assert coverage(*turned) == coverage(a, b)


@pytest.mark.parametrize("count", [2, 9, 40, 200])
def test_the_distance_of_many_draws_is_the_distance(count: int) -> None:
    """The interval would be that of another figure, where images are fewer than dimensions or not."""
    reference, made = moments(features(150, 40)), features(count, 40, 0.5, seed=1)
    expected = frechet_distance(moments(made), reference)
    assert frechet_distance_to(reference)(made) == pytest.approx(expected, rel=1e-6)


def test_the_bias_of_few_images_is_extrapolated() -> None:
    """A model would look worse only because fewer images were made; the extrapolation mends most of that."""
    reference = moments(features(4000, 16))
    made = features(4200, 16)[:300]  # of the same distribution
    bias = sample_size_bias(made, reference)
    assert bias is not None
    assert bias.distances[0] > bias.distances[-1] > 0
    assert abs(bias.unbiased) < bias.distances[-1]
    assert sample_size_bias(made[:50], reference) is None


def test_kernel_distance_equals_that_of_torchmetrics() -> None:
    """A KID that no other tool gives cannot be compared with any paper."""
    real, made = features(80), features(80, shift=0.3, seed=1)
    metric = KernelInceptionDistance(feature=Flat(6), subsets=1, subset_size=80)
    for side, is_real in ((real, True), (made, False)):
        metric.update(torch.from_numpy(side)[:, None, None], real=is_real)
    mean, _ = kernel_distance(made, real, subset_size=80)
    assert mean == pytest.approx(float(metric.compute()[0]), rel=1e-6)
    same, spread = kernel_distance(features(300), features(300, seed=0), subset_size=100)
    assert abs(same) < 0.1 * mean + 3 * spread


def test_cmmd_equals_its_definition() -> None:
    """The paper's numbers, times 1000 and of unit vectors, would be missed by a factor."""
    a, b = features(20), features(30, shift=1.0, seed=3)
    x, y = (f.astype(np.float64) / np.linalg.norm(f.astype(np.float64), axis=1, keepdims=True) for f in (a, b))

    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.mean([[np.exp(-((i - j) ** 2).sum() / 200) for j in q] for i in p]))

    assert cmmd(a, b) == pytest.approx(1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)), rel=1e-6)


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_precision_and_coverage_equal_those_of_prdc(shift: float) -> None:
    """The figures could not be compared with any paper's."""
    real, made = features(150), features(120, shift=shift, seed=1)
    ours = coverage(real, made, neighbours=5)
    theirs = compute_prdc(real_features=real.astype(np.float64), fake_features=made.astype(np.float64), nearest_k=5)
    for name, value in theirs.items():
        assert getattr(ours, name) == pytest.approx(value, rel=1e-6), name


def test_copies_are_not_authentic() -> None:
    """A model that shows its patients would pass for one that invents."""
    rng = np.random.default_rng(0)
    training, new = (rng.normal(size=(400, 4)).astype(np.float32) for _ in range(2))
    held_out = rng.normal(size=(300, 4)).astype(np.float32)
    copies = training[:300] + rng.normal(scale=0.01, size=(300, 4)).astype(np.float32)
    assert authentic_share(training, new) == pytest.approx(0.5, abs=0.1)
    assert authentic_share(training, copies) < 0.05
    fresh, copied = copying_score(training, held_out, new), copying_score(training, held_out, copies)
    assert fresh is not None
    assert copied is not None
    assert abs(fresh) < 2
    assert copied < -4
    assert copying_score(training, held_out[:2], new) is None


def test_ms_ssim_equals_that_of_torchmetrics() -> None:
    """The figure could not be compared with any paper's."""
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, (512, 480)).astype(np.float32)
    b = np.clip(a + rng.normal(scale=0.3, size=a.shape), -1, 1).astype(np.float32)
    theirs = multiscale_structural_similarity_index_measure(
        *(torch.from_numpy(x)[None, None].double() for x in (a, b)), data_range=2.0
    )
    assert ms_ssim(a, b) == pytest.approx(float(theirs), rel=2e-3)  # it also takes the border of the last scale
    assert ms_ssim(a, a) == pytest.approx(1)


@pytest.mark.parametrize("side", [176, 224, 256])
def test_ms_ssim_consists_of_ssim_of_torchmetrics(side: int) -> None:
    """The whole differs from torchmetrics by the border of the last scale, which could hide an error."""
    rng = np.random.default_rng(side)
    a = rng.uniform(-1, 1, (side, side)).astype(np.float32)
    b = np.clip(a + rng.normal(scale=0.3, size=a.shape), -1, 1).astype(np.float32)
    x, y = (torch.from_numpy(image)[None, None].double() for image in (a, b))
    expected = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333):
        _, contrast = structural_similarity_index_measure(x, y, data_range=2.0, return_contrast_sensitivity=True)
        _, whole = structural_similarity_index_measure(x, y, data_range=2.0, return_full_image=True)
        last = weight == 0.1333
        expected *= float(whole[..., 5:-5, 5:-5].mean() if last else contrast.mean()) ** weight
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    assert ms_ssim(a, b) == pytest.approx(expected, rel=1e-6)


def test_a_model_of_one_image_is_not_diverse() -> None:
    """Mode collapse looks perfect image by image."""
    rng = np.random.default_rng(0)
    varied = rng.uniform(-1, 1, (12, 32, 32)).astype(np.float32)
    collapsed = np.repeat(varied[:1], 12, axis=0)
    assert pair_similarity(collapsed).value == pytest.approx(1)
    found = pair_similarity(varied)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high < 0.5
    with pytest.raises(MedvarError, match="at least two"):
        pair_similarity(varied, ["one"] * 12)


def test_efficiency_has_both_interpretations() -> None:
    """One reading alone would look like the paper's figure, and might be a thousand times off."""
    assert efficiencies(10, 0.1, gamma=2.0) == {
        "P in seconds": pytest.approx(10 * np.log(1.1) ** 2),
        "P in milliseconds": pytest.approx(10 * np.log(101) ** 2),
    }


def test_intervals_are_over_patients_not_slices() -> None:
    """A hundred slices of two patients would look like a hundred people."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=10)
    values = np.repeat(people, 50) + rng.normal(scale=0.01, size=500)
    groups = [f"p{i // 50}" for i in range(500)]
    found = estimate(lambda index: float(values[index].mean()), groups)
    alone = estimate(lambda index: float(values[index].mean()), [str(i) for i in range(500)])
    assert found.low is not None
    assert found.high is not None
    assert alone.low is not None
    assert alone.high is not None
    assert found.low < found.value < found.high
    assert found.high - found.low > 3 * (alone.high - alone.low)
    assert estimate(lambda index: 1.0, ["one"] * 5).low is None


def test_all_draws_at_once_are_the_same_as_one_by_one() -> None:
    """Shares have their intervals by another way than other figures, which would then not mean the same."""
    values = np.random.default_rng(0).normal(size=60)
    names = [f"p{i % 7}" for i in range(60)]
    one_by_one = estimate(lambda index: float(values[index].mean()), names)
    at_once = estimate_mean(values, names)
    for name in ("value", "low", "high"):
        assert getattr(at_once, name) == pytest.approx(getattr(one_by_one, name))
    assert estimate_mean(values, ["one"] * 60).low is None


@pytest.mark.parametrize(
    ("draws", "figure"), [(cmmd_draws, cmmd), (kernel_draws, lambda a, b: kernel_distance(a, b, subset_size=200)[0])]
)
def test_a_kernel_distance_varies_as_with_new_images(draws: Any, figure: Any) -> None:
    """An interval by drawing again is to say how another set of as many images would come out."""
    theirs, *ours = (np.random.default_rng(seed).normal(bool(seed), size=(200, 4)) for seed in range(41))
    drawn = draws(ours[0], theirs, group_weights([str(i) for i in range(200)]))
    anew = [figure(one, theirs) for one in ours]
    assert np.std(drawn) == pytest.approx(np.std(anew), rel=0.5)


def test_the_interval_of_a_distance_contains_the_distance() -> None:
    """Repeated images are farther away: the interval would lie beside its own figure, and the model look worse."""
    rng = np.random.default_rng(0)
    made, to_reference = rng.normal(size=(60, 16)), frechet_distance_to(moments(rng.normal(size=(3000, 16))))
    names = [str(i) for i in range(60)]
    found = estimate_distance(lambda index: to_reference(made[index]), names, draws=50)
    drawn = estimate(lambda index: to_reference(made[index]), names, draws=50)
    assert found.low is not None
    assert found.high is not None
    assert drawn.low is not None
    assert drawn.high is not None
    assert drawn.low > found.value  # what is mended
    assert 0 <= found.low < found.value < found.high
    assert found.high - found.low <= drawn.high - drawn.low + 1e-9
    assert estimate_distance(lambda index: 1.0, ["one"] * 5).low is None


def test_equal_images_have_distance_zero() -> None:
    """Rounding of large features would pass for a difference, and for neighbours of a copy."""
    training = features(50) + 1000
    assert authentic_share(training, training) == 0
    assert authentic_share(np.repeat(training, 2, axis=0), training) == 0
    assert coverage(training, training).coverage == 1


def broken(count: int) -> np.ndarray:
    made = features(count)
    made[0, 0] = np.inf
    return made


@pytest.mark.parametrize(
    "compare",
    [
        lambda a, b: frechet_distance(moments(a), moments(b)),
        lambda a, b: frechet_distance_to(moments(a))(b),
        kernel_distance,
        cmmd,
        coverage,
        authentic_share,
        lambda a, b: copying_score(a, a, b),
    ],
)
def test_incomparable_features_are_refused(compare: object) -> None:
    """NaN passes every comparison as false, and so would give shares; other dimensions a traceback."""
    for made, message in ((broken(40), "not finite"), (features(40, 5), "encoder"), (features(40)[:, 0], "encoder")):
        with pytest.raises(MedvarError, match=message):
            compare(features(40), made)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moments(np.full((3, 2), np.nan, dtype=np.float32)), "not finite"),
        (lambda: moments(np.empty((0, 2), dtype=np.float32)), "at least 1"),
        (lambda: frechet_distance(moments(features(1)), moments(features(5))), "at least 2"),
        (lambda: kernel_distance(features(1), features(5)), "at least 2"),
        (lambda: cmmd(features(0), features(5)), "at least 1"),
        (lambda: coverage(features(5), features(50)), "more than 5"),
        (lambda: authentic_share(features(1), features(5)), "at least 2"),
        (lambda: copying_score(features(0), features(5), features(5)), "at least 2"),
        (lambda: coverage(np.ones((9, 3), np.float32), features(9, 3)), "the same"),
        (lambda: pair_similarity(np.full((4, 32, 32), np.nan, dtype=np.float32)), "not finite"),
        (lambda: efficiencies(10, -1), "not negative"),
        (lambda: efficiencies(float("nan"), 1), "finite"),
        (lambda: ms_ssim(np.zeros((8, 8), dtype=np.float32), np.zeros((8, 8), dtype=np.float32)), "10 pixels"),
    ],
)
def test_too_few_images_are_reported(call: object, message: str) -> None:
    """A label of three images would get a figure that means nothing."""
    with pytest.raises(MedvarError, match=message):
        call()  # type: ignore[operator]
