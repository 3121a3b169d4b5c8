"""Masks as D image channels: each structure, and the background, is a direction in a D-dimensional space.

A one-hot mask of M structures has M + 1 channels; D may be much smaller. A pixel holds the unit vector of its
structure, or half of it beside the border to another structure. Half-way between two structures, the vectors are close
to zero, so that resampling or rounding a mask does not create a third structure.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STEPS = 400  # steps of gradient descent that separate the directions
_SHARP = 20.0  # weight of the most similar pair of directions relative to others
_GAIN = 8.0  # factor of the scores, so that a clear structure gets nearly all of the probability


class MaskCanvas(nn.Module):
    """Maps masks ``(B, 1, H, W)`` of numbers of structures (0 is background) to channels ``(B, D, H, W)`` and back."""

    def __init__(self, structures: int, channels: int) -> None:
        super().__init__()
        # Stored with the weights, because another machine may round them differently.
        vectors = torch.empty(structures + 1, channels)
        self.register_buffer("vectors", vectors if vectors.is_meta else directions(structures + 1, channels))

    def draw(self, masks: Tensor) -> Tensor:
        """Numbers of structures ``(B, 1, H, W)``, of any type → channels ``(B, D, H, W)``."""
        labels = masks.float()
        around = F.pad(labels, (1, 1, 1, 1), mode="replicate")
        highest, lowest = F.max_pool2d(around, 3, 1), -F.max_pool2d(-around, 3, 1)
        length = torch.where(highest == lowest, 1.0, 0.5)
        return self.get_buffer("vectors")[masks[:, 0].long()].permute(0, 3, 1, 2) * length

    def scores(self, channels: Tensor) -> Tensor:
        """Channels ``(B, D, H, W)`` → scores of the background and of each structure, ``(B, M + 1, H, W)``."""
        return torch.einsum("bdhw,md->bmhw", channels, self.get_buffer("vectors")) * _GAIN


def directions(count: int, channels: int) -> Tensor:
    """``count`` unit vectors ``(count, channels)`` with large mutual angles, found by gradient descent."""
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
