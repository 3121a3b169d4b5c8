"""How far decoded masks are from the real ones: cross-entropy and Dice to learn from, and Dice to judge by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 100  # pixels of a structure in a slice that Dice is judged of


def mask_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy and soft Dice of scores ``(B, M + 1, H, W)`` against numbers of structures ``(B, 1, H, W)``.

    Dice is the mean over the structures that the batch shows, so that a small one counts as much as a large one.
    """
    target = masks[:, 0].long()
    share = scores.softmax(1)[:, 1:]
    real = F.one_hot(target, scores.shape[1]).movedim(-1, 1)[:, 1:].to(share.dtype)
    both, sizes = (share * real).sum((0, 2, 3)), (share + real).sum((0, 2, 3))
    there = real.sum((0, 2, 3)) > 0
    dice = (2 * both + 1) / (sizes + 1)
    missed = (1 - dice[there]).mean() if there.any() else scores.new_zeros(())
    return F.cross_entropy(scores, target) + missed


def dice_of(found: Tensor, real: Tensor, structures: int, smallest: int = SMALLEST) -> Tensor:
    """Dice of each structure with more than ``smallest`` pixels in each mask, ``(N,)``; masks are ``(B, 1, H, W)``."""
    numbers = torch.arange(1, structures + 1, device=real.device)[None, :, None, None]
    own, other = real.round() == numbers, found.round() == numbers
    size = own.sum((2, 3))
    dice = 2 * (own & other).sum((2, 3)) / (size + other.sum((2, 3))).clamp_min(1)
    return dice[size > smallest]
