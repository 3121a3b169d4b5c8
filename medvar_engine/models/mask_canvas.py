"""Masks as a few channels of an image: each structure, and the background, is a direction in a small space.

A mask of M structures would be M + 1 channels of zeros and ones; here it is D channels, of which D may be far smaller.
At a pixel they hold the unit vector of its structure, half as long beside the border to another structure. Half-way
between two structures the vectors pass through about zero, so that enlarging or rounding a mask invents no third one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STEPS = 400  # of pushing the directions apart
_SHARP = 20.0  # how much more the nearest two directions count than the others
_GAIN = 8.0  # of scores: a clear structure gets nearly all of the probability


class MaskCanvas(nn.Module):
    """Masks ``(B, 1, H, W)``, whose values are numbers of structures and 0 → ``(B, D, H, W)``, and back."""

    def __init__(self, structures: int, channels: int) -> None:
        super().__init__()
        # Kept with the weights, so that no other machine rounds them in another way.
        vectors = torch.empty(structures + 1, channels)
        self.register_buffer("vectors", vectors if vectors.is_meta else directions(structures + 1, channels))

    def draw(self, masks: Tensor) -> Tensor:
        """Numbers of structures ``(B, 1, H, W)``, of any type → ``(B, D, H, W)``."""
        labels = masks.float()
        around = F.pad(labels, (1, 1, 1, 1), mode="replicate")
        highest, lowest = F.max_pool2d(around, 3, 1), -F.max_pool2d(-around, 3, 1)
        length = torch.where(highest == lowest, 1.0, 0.5)
        return self.get_buffer("vectors")[masks[:, 0].long()].permute(0, 3, 1, 2) * length

    def scores(self, channels: Tensor) -> Tensor:
        """``(B, D, H, W)`` → how much each pixel is of the background and of each structure, ``(B, M + 1, H, W)``."""
        return torch.einsum("bdhw,md->bmhw", channels, self.get_buffer("vectors")) * _GAIN


def directions(count: int, channels: int) -> Tensor:
    """``count`` unit vectors ``(count, channels)`` that point as far apart as a few steps of descent bring them."""
    with torch.device("cpu"), torch.enable_grad():
        generator = torch.Generator("cpu").manual_seed(0)
        vectors = torch.randn(count, channels, generator=generator).requires_grad_(True)
        optimiser = torch.optim.Adam([vectors], lr=0.03)
        for _ in range(_STEPS):
            unit = F.normalize(vectors, dim=1)
            alike = (unit @ unit.T - 2 * torch.eye(count)) * _SHARP
            optimiser.zero_grad()
            alike.logsumexp((0, 1)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return F.normalize(vectors.detach(), dim=1)
