"""The finest detail of images: four bands of it, and noise of those bands, of which grain is made."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BANDS = 4
_SMOOTH, _SMOOTHER = torch.tensor([1.0, 2, 1]) / 4, torch.tensor([1.0, 0, 2, 0, 1]) / 4
_EDGE = torch.tensor([-1.0, 2, -1]) / 4


def detail_bands(image: Tensor) -> Tensor:
    """``(B, C, H, W)`` → ``(B, 4·C, H, W)``: what changes across, down and diagonally from pixel to pixel, and slower.

    The first three lie in the finest octave of spatial frequencies, the last in the one before it. Mirrored beyond the
    sides.
    """
    with torch.autocast(image.device.type, enabled=False):  # fine detail is less than bfloat16 tells apart
        return torch.cat(_bands(image.float(), "reflect"), 1)


def grain(size: int) -> Tensor:
    """Noise ``(4, size, size)`` of the bands of `detail_bands`, each of mean square 1: always the same.

    It goes on beyond a side as it begins at the opposite one. The numbers are those of a counter-based generator
    (Philox-4×64), whose bits are the same everywhere, and lie on the CPU.
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
    """Convolved with the outer product of two filters, each channel by itself."""
    kernel = torch.outer(down, across).to(image.device, image.dtype)
    margin = len(down) // 2
    padded = F.pad(image, (margin,) * 4, mode=beyond)
    channels = image.shape[1]
    return F.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)
