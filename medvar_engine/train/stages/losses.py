"""Further losses of the tokenizer, and its optional patch discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.models.fine_detail import BANDS, detail_bands


def gradient_loss(output: Tensor, target: Tensor, levels: int = 2) -> Tensor:
    """Mean absolute error of the image gradients at ``levels`` resolutions, which preserves edges."""
    total = output.new_zeros(())
    for level in range(levels):
        for dim in (2, 3):
            total = total + (output.diff(dim=dim) - target.diff(dim=dim)).abs().mean()
        if level + 1 < levels:
            output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
    return total / levels


def log_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean over images of the logarithm of the mean squared error, a falling linear function of the mean PSNR.

    All images count equally. In the mean squared error itself, a few with strong noise count more than all others.
    """
    return (output - target).square().mean((1, 2, 3)).clamp(min=1e-5).log().mean()


_WHOLE = 0.05  # about the root mean square of fine detail, so that both losses are of similar size
_UNSEEN = 1e-4  # power of detail that is hardly seen; differences below it do not count for the whole image


def texture_losses(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of the strength of fine detail of each image ``(B, C, H, W)``: local and whole, ``(B,)`` each.

    They do not depend on the exact pattern of the detail, but on its power in windows of 8 pixels, for each of
    `detail_bands`. The local loss is the mean absolute error of its root at each position. It is lowest for a low
    prediction: half of the windows have less detail than the one in the middle, but the others have much more. The loss
    of the whole image therefore compares the windows of both images in the order of their power, whatever their
    position, by its logarithm: as many windows must be smooth, and as many rich in detail. For detail at other
    positions than in the target, only the whole counts.

    The mean power alone could be reached by grain in smooth tissue instead of the missing edges.
    """
    made, real = _power(output), _power(target)
    ordered = [(power + _UNSEEN).log().flatten(2).sort(-1).values for power in (made, real)]
    whole = (ordered[0] - ordered[1]).abs().mean((1, 2))
    return (made.sqrt() - real.sqrt()).abs().mean((1, 2, 3)), _WHOLE * whole


def _power(image: Tensor) -> Tensor:
    """Mean square of each of `detail_bands` around every fourth pixel."""
    return F.avg_pool2d(detail_bands(image).square(), 8, 4) + 1e-6


_SHOWN = 8.0  # amplification of fine detail for the discriminator, to about the strength of the image


class PatchDiscriminator(nn.Module):
    """Classifies overlapping patches as real or generated (PatchGAN, arXiv 1611.07004).

    Fine detail, which is faint in an image, is an additional input, so that the discriminator uses it early.
    """

    def __init__(self, channels: int, width: int = 32, layers: int = 3) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(channels * (1 + BANDS), width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, layers):
            inner, outer = width * 2 ** (i - 1), width * 2**i
            blocks += [nn.Conv2d(inner, outer, 4, 2, 1), nn.GroupNorm(8, outer), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*blocks, nn.Conv2d(width * 2 ** (layers - 1), 1, 4, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` → scores ``(B, 1, h, w)``; higher means more real."""
        return self.net(torch.cat([image, _SHOWN * detail_bands(image)], 1))  # type: ignore[no-any-return]


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """Hinge loss of the discriminator."""
    return (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """VQGAN's adaptive weight (arXiv 2012.09841, eq. 7): the ratio of the gradients at the decoder's last layer."""
    wanted = torch.autograd.grad(reconstruction, last, retain_graph=True)[0].norm()
    given = torch.autograd.grad(adversarial, last, retain_graph=True)[0].norm()
    return (wanted / (given + 1e-4)).clamp(0, 1e4).detach()
