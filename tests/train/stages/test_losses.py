from __future__ import annotations

import numpy as np
import pytest
import torch

from medvar_engine.models.fine_detail import detail_bands
from medvar_engine.train.stages.image_similarity import detail_strength, psnr
from medvar_engine.train.stages.losses import (
    PatchDiscriminator,
    gradient_loss,
    log_error,
    texture_losses,
)


def texture_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Local and whole."""
    local, whole = texture_losses(output, target)
    return local + whole


def whole_texture_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Of detail that lies elsewhere."""
    return texture_losses(output, target)[1]


@pytest.mark.parametrize("loss", [gradient_loss, texture_loss])
def test_a_loss_is_least_where_nothing_differs(loss: object) -> None:
    """A term of the wrong sign would blur what it is to sharpen."""
    torch.manual_seed(0)
    target = torch.rand(2, 1, 16, 16)
    noise = torch.randn_like(target)
    values = [float(loss(target + s * noise, target).mean()) for s in (0.0, 0.1, 0.3)]  # type: ignore[operator]
    assert values[0] == 0
    assert values[1] < values[2]


def test_texture_losses_depend_on_strength_and_region_of_grain_only() -> None:
    """A smooth image would be nearer to a grainy one than another draw of the same grain."""
    torch.manual_seed(0)
    there = torch.ones(64).index_fill(0, torch.arange(32), 0)  # in one half only
    real, alike, elsewhere = (0.2 * torch.randn(4, 1, 64, 64) * where for where in (there, there, 1 - there))
    smooth = torch.zeros_like(real)
    assert (texture_loss(alike, real) < 0.3 * texture_loss(smooth, real)).all()
    assert (texture_loss(alike, real) < 0.4 * texture_loss(elsewhere, real)).all()
    assert (whole_texture_loss(alike, real) < 0.3 * whole_texture_loss(smooth, real)).all()
    torch.testing.assert_close(whole_texture_loss(elsewhere.flip(3), real), whole_texture_loss(elsewhere, real))
    assert detail_strength(alike, real).tolist() == pytest.approx([1.0] * 4, abs=0.1)
    assert detail_strength(real / 2, real).tolist() == pytest.approx([0.5] * 4, abs=0.01)


def test_grain_is_no_substitute_for_edges() -> None:
    """Smooth tissue would become grainy in images with blurred edges, as a comparison of the mean power makes it."""
    torch.manual_seed(2)
    real = torch.zeros(4, 1, 64, 64)
    real[..., 32:] = 0.5
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(real, (2, 2, 2, 2), mode="replicate"), 5, 1)
    missing = detail_bands(real).square().mean() - detail_bands(blurred).square().mean()
    noise = torch.randn_like(real)
    grainy = blurred + noise * (missing / detail_bands(noise).square().mean()).sqrt()
    assert (whole_texture_loss(blurred, real) < 0.3 * whole_texture_loss(grainy, real)).all()


def test_every_image_counts_equally_in_the_logarithm_of_errors() -> None:
    """A few noisy images would decide what is learned, while the mean PSNR depends on all."""
    target = torch.zeros(2, 1, 8, 8)
    output = torch.stack([torch.full((1, 8, 8), error) for error in (0.1, 0.5)])
    value = float(log_error(output, target))
    assert value == pytest.approx(np.log([0.01, 0.25]).mean(), rel=1e-5)
    assert value == pytest.approx(float(-psnr(output, target).mean() / 10 * np.log(10) + np.log(4)), rel=1e-5)
    output.requires_grad_()
    (gradient,) = torch.autograd.grad(log_error(output, target), output)
    size = gradient.flatten(1).norm(dim=1) * torch.tensor([0.1, 0.5])  # of a change by a factor
    assert float(size[0]) == pytest.approx(float(size[1]), rel=1e-5)


def test_the_discriminator_sees_faint_grain() -> None:
    """It would judge outlines alone for most of a short run."""
    torch.manual_seed(0)
    critic, image = PatchDiscriminator(1), torch.rand(2, 1, 32, 32)
    grain = 0.02 * (-1.0) ** torch.arange(32)
    change = (critic(image + grain) - critic(image)).abs().mean()
    assert change > (critic(image + 0.02) - critic(image)).abs().mean()
