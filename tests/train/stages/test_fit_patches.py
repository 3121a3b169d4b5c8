"""Patches are fitted to slices, not learned by gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.train.stages.fit_patches import fit_patches

CONFIG = ResolutionConfig(16, (1, 2, 4), 48, feature_channels=24, patch=4, margin=2, refiner_widths=(8, 8))


def discs(count: int) -> Tensor:
    """Bright discs of any size and place ``(N, 1, 16, 16)``."""
    at = torch.arange(16.0)
    rows, columns, radius = torch.rand(3, count, 1, 1) * 8 + 3
    inside = (at[:, None] - rows).square() + (at - columns).square() < radius.square()
    return (inside.float() * 1.6 - 0.9)[:, None]


@pytest.fixture
def fitted() -> ResolutionTokenizer:
    torch.manual_seed(0)
    model = ResolutionTokenizer(CONFIG)
    fit_patches(model.quantizer, model.latent(discs(400)), log=lambda _: None)
    return model


def test_every_scale_makes_new_images_sharper(fitted: ResolutionTokenizer) -> None:
    """Stepping through the scales would not show one image getting sharper."""
    torch.manual_seed(1)
    images = discs(60)
    tokens = fitted.encode(images)
    errors = [
        float((fitted.preview(fitted.quantizer.decode(tokens[: k + 1])) - images).square().mean())
        for k in range(len(tokens))
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.35 * errors[0]


def test_fewer_slices_than_codes_are_enough() -> None:
    """A first try on a few slices would end in a traceback."""
    torch.manual_seed(0)
    model, images = ResolutionTokenizer(CONFIG), discs(9)  # nine blocks of the coarsest scale for 48 codes
    fit_patches(model.quantizer, model.latent(images), log=lambda _: None)
    restored = model.preview(model.quantizer.decode(model.encode(images)))
    assert float((restored - images).square().mean()) < 0.05


def test_features_are_decorrelated(fitted: ResolutionTokenizer) -> None:
    """Faint detail would be drowned by brightness in what the transformer is shown."""
    features = fitted.quantizer.scale_features(fitted.encode(discs(300)))[:, 4:].flatten(0, 1)  # of the finest scale
    covariance = torch.cov(features.T)
    spread = covariance.diagonal()
    assert 0.3 < float(spread[:4].mean()) < 1.7
    assert float((covariance - spread.diag()).abs().max()) < 0.35


def test_the_same_seed_gives_the_same_patches() -> None:
    """Two trainings by one recipe could not be compared."""
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        model = ResolutionTokenizer(CONFIG)
        fit_patches(model.quantizer, model.latent(discs(100)), log=lambda _: None)
        made.append(model.quantizer.codes)
    assert (made[0] == made[1]).all()


def test_fewer_slices_than_patches() -> None:
    """The coarsest scale has one block a slice: a small data set has fewer than there are patches."""
    torch.manual_seed(0)
    model = ResolutionTokenizer(CONFIG)
    few = discs(20)
    fit_patches(model.quantizer, model.latent(few), log=lambda _: None)
    assert torch.isfinite(torch.from_numpy(model.quantizer.codes)).all()
    shown = model.preview(model.quantizer.decode(model.encode(few)))
    assert float((shown - few).abs().mean()) < 0.1
