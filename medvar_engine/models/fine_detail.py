"""The finest detail of images: a filter bank of four bands, and noise in these bands to synthesise film grain."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BANDS = 4
_SMOOTH, _SMOOTHER = torch.tensor([1.0, 2, 1]) / 4, torch.tensor([1.0, 0, 2, 0, 1]) / 4
_EDGE = torch.tensor([-1.0, 2, -1]) / 4


def detail_bands(image: Tensor) -> Tensor:
    """Filter ``(B, C, H, W)`` into four bands of detail, ``(B, 4·C, H, W)``.

    The first three hold horizontal, vertical and diagonal changes in the finest octave of spatial frequencies, the last
    holds the next coarser octave. The image is mirrored at its borders.
    """
    with torch.autocast(image.device.type, enabled=False):  # fine detail is below the resolution of bfloat16
        return torch.cat(_bands(image.float(), "reflect"), 1)


def grain(size: int) -> Tensor:
    """Constant noise ``(4, size, size)`` in the bands of `detail_bands`, each with mean square 1, on the CPU.

    It is periodic. The numbers come from a counter-based generator (Philox-4×64), which gives the same bits on every
    machine.
    """
    bits = np.random.Philox(key=np.array([0, 0], dtype=np.uint64)).random_raw(BANDS * size * size)
    uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
    noise = torch.from_numpy(uniform.astype(np.float32)).view(BANDS, 1, size, size)
    bands = torch.cat([_bands(noise[i : i + 1], "circular")[i][0] for i in range(BANDS)])
    return bands / bands.square().mean((1, 2), keepdim=True).sqrt()


def _bands(image: Tensor, beyond: str) -> tuple[Tensor, ...]:
    smooth = _filtered(image, _SMOOTH, _SMOOTH, beyond)
    return (
        _filtered(image, _SMOOTH, _EDGE, beyond),
        _filtered(image, _EDGE, _SMOOTH, beyond),
        _filtered(image, _EDGE, _EDGE, beyond),
        smooth - _filtered(smooth, _SMOOTHER, _SMOOTHER, beyond),
    )


def _filtered(image: Tensor, down: Tensor, across: Tensor, beyond: str) -> Tensor:
    """Each channel convolved with the outer product of two filters; ``beyond`` is the padding mode."""
    kernel = torch.outer(down, across).to(image.device, image.dtype)
    margin = len(down) // 2
    padded = F.pad(image, (margin,) * 4, mode=beyond)
    channels = image.shape[1]
    return F.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)
