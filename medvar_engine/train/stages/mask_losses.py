"""Losses of masks (cross-entropy and soft Dice), and the Dice coefficient for validation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 100  # least pixels of a structure in a slice for a Dice coefficient


def mask_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy and soft Dice of scores ``(B, M + 1, H, W)`` against numbers of structures ``(B, 1, H, W)``.

    Dice is averaged over the structures in the batch, so that small structures count as much as large ones. The loss of
    an empty batch is 0.
    """
    if not len(scores):
        return scores.sum()  # 0, with a gradient
    target = masks[:, 0].long()
    share = scores.softmax(1)[:, 1:]
    real = F.one_hot(target, scores.shape[1]).movedim(-1, 1)[:, 1:].to(share.dtype)
    both, sizes = (share * real).sum((0, 2, 3)), (share + real).sum((0, 2, 3))
    there = real.sum((0, 2, 3)) > 0
    dice = (2 * both + 1) / (sizes + 1)
    missed = (1 - dice[there]).mean() if there.any() else scores.new_zeros(())
    return F.cross_entropy(scores, target) + missed


def dice_of(found: Tensor, real: Tensor, structures: int, smallest: int = SMALLEST) -> Tensor:
    """Dice coefficients ``(N,)`` of the structures with more than ``smallest`` pixels in each mask ``(B, 1, H, W)``."""
    numbers = torch.arange(1, structures + 1, device=real.device)[None, :, None, None]
    own, other = real.round() == numbers, found.round() == numbers
    size = own.sum((2, 3))
    dice = 2 * (own & other).sum((2, 3)) / (size + other.sum((2, 3))).clamp_min(1)
    return dice[size > smallest]
