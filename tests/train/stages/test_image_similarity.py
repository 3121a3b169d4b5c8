from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity

from medvar_engine.train.stages.image_similarity import psnr, ssim


def test_ssim_equals_that_of_another_implementation() -> None:
    """Figures could not be compared with those of any paper."""
    torch.manual_seed(0)
    target = torch.rand(3, 1, 40, 32) * 2 - 1
    output = (target + 0.2 * torch.randn_like(target)).clamp(-1, 1)
    for ours, made, real in zip(ssim(output, target), output, target, strict=True):
        theirs = structural_similarity(
            *(image[0].double().numpy() for image in (made, real)),
            data_range=2.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert float(ours) == pytest.approx(float(theirs), rel=1e-4)
    assert ssim(target, target).tolist() == pytest.approx([1.0] * 3)


def test_psnr_equals_its_definition() -> None:
    """Figures could not be compared with those of any paper."""
    # Peak to peak is 2.
    assert psnr(torch.full((1, 1, 4, 4), 0.2), torch.zeros(1, 1, 4, 4)).item() == pytest.approx(20)
