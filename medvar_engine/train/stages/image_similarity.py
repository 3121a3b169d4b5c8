"""How similar a decoded image is to the real one: PSNR, SSIM, and the strength of fine detail."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medvar_engine.models.fine_detail import detail_bands


def detail_strength(output: Tensor, target: Tensor) -> Tensor:
    """Root mean square of the finest detail of each image ``(B, C, H, W)``, divided by that of its target: ``(B,)``."""
    made, real = (detail_bands(image)[:, : -image.shape[1]].square().mean((1, 2, 3)) for image in (output, target))
    return ((made + 1e-6) / (real + 1e-6)).sqrt()


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image ``(B, C, H, W)`` in [-1, 1], in dB: ``(B,)``."""
    error = (output - target).square().flatten(1).mean(1).clamp(min=1e-10)
    return 10 * torch.log10(4 / error)


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang 2004) of each image ``(B, 1, H, W)`` in [-1, 1]: ``(B,)``.

    The Gaussian window has 11 pixels and σ 1.5; only positions at which it lies within the image are used.
    """
    at = torch.arange(-5.0, 6.0, device=output.device)
    line = (-at.square() / (2 * 1.5**2)).exp()
    window = torch.outer(line / line.sum(), line / line.sum())[None, None]

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window)

    x, y, c1, c2 = output.float(), target.float(), (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mx, my = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    alike = (2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (xx + yy + c2))
    return alike.flatten(1).mean(1)
