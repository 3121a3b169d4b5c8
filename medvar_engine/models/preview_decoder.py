"""`PreviewDecoder`: a light decoder for previews of coarse scales, at a small share of the cost of the full decoder.

It is distilled from the full decoder by `medvar_engine.train.stages.preview_stage`. It consists of a few convolutions
at the latent's resolution, whose channels are rearranged to pixels (arXiv 1609.05158), and one narrow convolution at
half the image's resolution, which removes seams between blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medvar_engine.models.tokenizer import ResidualBlock, Tokenizer, TokenizerConfig

MAX_COST = 0.05  # largest cost as a share of the full decoder


@dataclass(frozen=True)
class PreviewConfig:
    """The architecture of a light decoder."""

    latent_channels: int  # channels of a latent
    block: int  # pixels per side of the block under one position of the latent
    image_channels: int
    width: int
    blocks: int  # residual blocks at the latent's resolution
    seam_width: int = 4  # channels at half the image's resolution
    groups: int = 8  # groups of group normalisation


class PreviewDecoder(nn.Module):
    """Decodes latents to previews."""

    def __init__(self, config: PreviewConfig) -> None:
        super().__init__()
        self.config = config
        width, half = config.width, config.block // 2
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, width, config.groups) for _ in range(config.blocks)))
        self.unfold = nn.Conv2d(width, config.seam_width * half**2, 1)
        self.seams = nn.Conv2d(config.seam_width, config.image_channels * 4, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Latent ``(B, C, side, side)`` → preview ``(B, image channels, H, W)``, not clamped."""
        h = self.unfold(F.silu(self.blocks(self.conv_in(latent))))
        h = F.pixel_shuffle(h, self.config.block // 2)
        return F.pixel_shuffle(self.seams(F.silu(h)), 2)

    def decode(self, latent: Tensor) -> Tensor:
        """Like `forward`, but clamped to [-1, 1]."""
        return self(latent).clamp(-1, 1)  # type: ignore[no-any-return]


def preview_config(tokenizer: TokenizerConfig) -> PreviewConfig:
    """The widest light decoder that costs at most `MAX_COST` of the full decoder of a tokenizer."""
    block = tokenizer.image_size // tokenizer.schedule[-1]
    shapes = [
        PreviewConfig(tokenizer.latent_channels, block, tokenizer.image_channels, width, 2, seam_width)
        for width, seam_width in ((8, 1), (16, 2), (24, 3), (32, 4), (48, 6), (64, 8), (96, 8), (128, 8), (192, 8))
    ]
    return max((s for s in shapes if cost(s, tokenizer) <= MAX_COST), key=lambda s: s.width, default=shapes[0])


def cost(preview: PreviewConfig, tokenizer: TokenizerConfig) -> float:
    """Operations of the light decoder as a share of those of the full one, counted on tensors without data."""
    with torch.device("meta"):
        return _operations(PreviewDecoder(preview).decode, tokenizer) / _operations_of_full(tokenizer)


@functools.cache
def _operations_of_full(tokenizer: TokenizerConfig) -> int:
    with torch.device("meta"):
        return _operations(Tokenizer(tokenizer).decode, tokenizer)


def _operations(decode: Callable[[Tensor], Tensor], tokenizer: TokenizerConfig) -> int:
    side = tokenizer.schedule[-1]
    with FlopCounterMode(display=False) as counter:
        decode(torch.empty(1, tokenizer.latent_channels, side, side))
    return counter.get_total_flops()
