"""Augmentation of a batch of slices: small affine, elastic and intensity changes.

All parameters are drawn from torch's global generator, which the loop seeds at every step, so that a resumed run gets
the same batches as an uninterrupted one. No library is used: kornia took five times as long per batch
(benchmarks/augmentation.py) and has no bias field, and TorchIO and MONAI process one volume at a time.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION = math.radians(7)
MAX_SCALE = 0.12  # ± fraction of the size
MAX_SHIFT = 0.06  # ± fraction of half the side length
ELASTIC_NODES = 5  # control points per side
MAX_ELASTIC = 0.035  # standard deviation of the displacement of a control point, as a fraction of half the side length
MAX_GAMMA = 0.25  # ± exponent in log space
MAX_GAIN = 0.08
MAX_BIAS = 0.10
HOUNSFIELD = (
    0.15  # for CT, the intensity change is reduced to this fraction, because Hounsfield units have a fixed meaning
)


def augment(images: Tensor, hounsfield: Tensor | None = None, *, masks: bool = False) -> Tensor:
    """Warp images ``(B, C, H, W)`` in [-1, 1] and change their intensities a little; returns images of the same shape.

    ``hounsfield`` ``(B,)`` is true for CT images: their values have a fixed meaning, so their intensities change very
    little, and they get no bias field, which occurs in MR only. The change of an image does not depend on
    ``hounsfield`` of other images.

    With ``masks``, the last channel holds numbers of structures. It is warped in the same way, with nearest-neighbour
    interpolation, and not changed otherwise.
    """
    grid = _affine_grid(images) + _elastic_grid(images)
    pixels = images[:, :-1] if masks else images
    # Bilinear interpolation would halve the power of the finest detail, and models would learn smooth images.
    warped = F.grid_sample(pixels + 1, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
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
    """Change images in [0, 1] by gamma, gain and a smooth bias field; air (0) stays 0."""
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
