"""Plausible change of a batch of slices: small affine, elastic and intensity changes.

All parameters are drawn from torch's global generator, which the loop seeds at every step, so that a resumed
run sees what an uninterrupted one would have seen. It is not a library's, for of the three at hand kornia took five
times as long a batch (benchmarks/augment.py) and has no bias field, and TorchIO and MONAI change one volume at a time.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION = math.radians(7)
MAX_SCALE = 0.12  # ± share of the size
MAX_SHIFT = 0.06  # ± share of the image's half side
ELASTIC_NODES = 5  # control points a side
MAX_ELASTIC = 0.035  # standard deviation of a control point's move, in half sides
MAX_GAMMA = 0.25  # ± exponent in log space
MAX_GAIN = 0.08
MAX_BIAS = 0.10
HOUNSFIELD = 0.15  # share of the change of intensity that is left where values mean something


def augment(images: Tensor, hounsfield: Tensor | None = None, *, masks: bool = False) -> Tensor:
    """``(B, C, H, W)`` in [-1, 1] → the same, each image warped and its intensities bent a little.

    Images for which ``hounsfield`` ``(B,)`` is true are CT: their values mean something, so that they hardly change,
    and they get no bias field, which is of MR coils. Each image's change is the same whatever ``hounsfield`` is of
    the others.

    With ``masks`` the last channel holds numbers of structures, which are warped alike, by nearest neighbour, and no
    more than that.
    """
    grid = _affine_grid(images) + _elastic_grid(images)
    pixels = images[:, :-1] if masks else images
    warped = F.grid_sample(pixels + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    bent = (_bend(warped / 2, hounsfield) * 2 - 1).clamp(-1, 1)
    if not masks:
        return bent
    moved = F.grid_sample(images[:, -1:], grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return torch.cat((bent, moved), 1)


def _uniform(count: int, limit: float, device: torch.device) -> Tensor:
    return (torch.rand(count, device=device) * 2 - 1) * limit


def _affine_grid(images: Tensor) -> Tensor:
    count, device = len(images), images.device
    angle = _uniform(count, MAX_ROTATION, device)
    scale_x = 1 + _uniform(count, MAX_SCALE, device)
    scale_y = scale_x * (1 + _uniform(count, MAX_SCALE / 3, device))
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 1] = scale_x * angle.cos(), -scale_x * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = scale_y * angle.sin(), scale_y * angle.cos()
    theta[:, 0, 2], theta[:, 1, 2] = _uniform(count, MAX_SHIFT, device), _uniform(count, MAX_SHIFT, device)
    return F.affine_grid(theta, list(images.shape), align_corners=False)


def _elastic_grid(images: Tensor) -> Tensor:
    """A smooth displacement field ``(B, H, W, 2)`` through a few random control points."""
    nodes = torch.randn(len(images), 2, ELASTIC_NODES, ELASTIC_NODES, device=images.device) * MAX_ELASTIC
    field = F.interpolate(nodes, size=images.shape[2:], mode="bicubic", align_corners=True)
    return field.permute(0, 2, 3, 1)


def _bend(images: Tensor, hounsfield: Tensor | None) -> Tensor:
    """Gamma, gain and a smooth bias field on images in [0, 1]; air (0) stays air."""
    count, device = len(images), images.device
    share, field = torch.ones(count, device=device), torch.ones(count, device=device)
    if hounsfield is not None:
        share = share.masked_fill(hounsfield.to(device), HOUNSFIELD)
        field = field.masked_fill(hounsfield.to(device), 0.0)
    gamma = (_uniform(count, MAX_GAMMA, device) * share).exp()[:, None, None, None]
    gain = (1 + _uniform(count, MAX_GAIN, device) * share)[:, None, None, None]
    nodes = torch.randn(count, 1, 3, 3, device=device) * (MAX_BIAS / 2) * field[:, None, None, None]
    bias = 1 + F.interpolate(nodes, size=images.shape[2:], mode="bicubic", align_corners=True)
    return images.clamp(0, 1) ** gamma * gain * bias
