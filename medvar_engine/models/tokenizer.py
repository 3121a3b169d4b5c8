"""The multi-scale VQ tokenizer: a convolutional autoencoder around `MultiScaleQuantizer`.

The layers are those of VQGAN as used by VAR (arXiv 2404.02905, section 3.3), so that published weights can be loaded. A
``patch`` above 1 folds blocks of pixels into channels at the input, which makes small models fast on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.models.attention import attend
from medvar_engine.models.quantizer import MultiScaleQuantizer, Quantized
from medvar_engine.tokens.schedule import ScaleSchedule


@dataclass(frozen=True)
class TokenizerConfig:
    """The architecture of a tokenizer."""

    image_size: int  # pixels per side
    schedule: tuple[int, ...]
    vocabulary: int  # V, size of the codebook
    latent_channels: int  # channels of a latent
    channels: tuple[int, ...]  # channels at each resolution, fine to coarse
    res_blocks: int  # residual blocks per resolution in the encoder; the decoder has one more
    groups: int = 32  # groups of group normalisation
    attention: bool = True  # self-attention at the coarsest resolution
    patch: int = 1  # pixels per side that are folded into one position at the input
    image_channels: int = 1
    linear_path: bool = (
        False  # a patch-wise linear autoencoder in parallel to the convolutions; small models learn faster with it
    )
    phis: int = 4
    phi_ratio: float = 0.5
    beta: float = 0.25  # weight of the commitment loss

    @property
    def feature_channels(self) -> int:
        """Channels of the scale features, equal to those of a latent."""
        return self.latent_channels

    def __post_init__(self) -> None:
        factor = self.patch * 2 ** (len(self.channels) - 1)
        if self.image_size != self.schedule[-1] * factor:
            raise ValueError(
                f"image_size {self.image_size}, patch {self.patch} and {len(self.channels)} resolutions give a "
                f"latent of side {self.image_size / factor:g}, but the schedule ends at {self.schedule[-1]}. "
                "The two must be equal."
            )


class ResidualBlock(nn.Module):
    """Residual block: ``x + conv(silu(norm(conv(silu(norm(x))))))``."""

    def __init__(self, inner: int, outer: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inner, eps=1e-6)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outer, eps=1e-6)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.shortcut = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inner, H, W)`` → ``(B, outer, H, W)``."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h  # type: ignore[no-any-return]


class SpatialAttention(nn.Module):
    """Self-attention with one head over all positions."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, C, H, W)``."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)  # (B, H·W, C) each
        h = attend(q, k, v, scale=x.shape[1] ** -0.5)
        return x + self.proj(h.transpose(1, 2).unflatten(2, x.shape[2:]))  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Halves the side length by a strided convolution with padding at the right and bottom only, as in VQGAN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, C, H/2, W/2)``."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Doubles the side length by repeating pixels, followed by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, C, 2H, 2W)``."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """The blocks of one resolution, and the change to the next resolution."""

    def __init__(self, inner: int, outer: int, blocks: int, groups: int, attention: bool, resample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(inner if i == 0 else outer, outer, groups) for i in range(blocks))
        self.attentions = nn.ModuleList(SpatialAttention(outer, groups) for _ in range(blocks if attention else 0))
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inner, H, W)`` → ``(B, outer, H', W')``."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[i](x)
        return self.resample(x)  # type: ignore[no-any-return]


def _middle(channels: int, groups: int, attention: bool) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(channels, channels, groups),
        SpatialAttention(channels, groups) if attention else nn.Identity(),
        ResidualBlock(channels, channels, groups),
    )


class Encoder(nn.Module):
    """Maps images to features of the latent's size."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths, last = config.channels, len(config.channels) - 1
        self.patch = config.patch
        self.conv_in = nn.Conv2d(config.image_channels * config.patch**2, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            Stage(
                widths[max(i - 1, 0)],
                width,
                config.res_blocks,
                config.groups,
                config.attention and i == last,
                Downsample(width) if i < last else nn.Identity(),
            )
            for i, width in enumerate(widths)
        )
        self.middle = _middle(widths[-1], config.groups, config.attention)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, image channels, H, W)`` → ``(B, C, side, side)``."""
        h = self.conv_in(F.pixel_unshuffle(image, self.patch))
        for stage in self.stages:
            h = stage(h)
        return self.conv_out(F.silu(self.norm_out(self.middle(h))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Maps features of the latent's size to images."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths, last = config.channels, len(config.channels) - 1
        self.patch = config.patch
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.middle = _middle(widths[-1], config.groups, config.attention)
        self.stages = nn.ModuleList(
            Stage(
                widths[min(i + 1, last)],
                widths[i],
                config.res_blocks + 1,
                config.groups,
                config.attention and i == last,
                Upsample(widths[i]) if i > 0 else nn.Identity(),
            )
            for i in reversed(range(len(widths)))
        )
        self.norm_out = nn.GroupNorm(config.groups, widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], config.image_channels * config.patch**2, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, side, side)`` → ``(B, image channels, H, W)``."""
        h = self.middle(self.conv_in(features))
        for stage in self.stages:
            h = stage(h)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.patch)


class Tokenizer(nn.Module):
    """Encodes images as token maps, and decodes latents to images."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = ScaleSchedule(config.schedule)
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 3, padding=1)
        self.quantizer = MultiScaleQuantizer(
            self.schedule,
            config.vocabulary,
            config.latent_channels,
            phis=config.phis,
            phi_ratio=config.phi_ratio,
            beta=config.beta,
        )
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 3, padding=1)
        self.decoder = Decoder(config)
        block = config.image_size // config.schedule[-1]  # pixels per side under one position of the latent
        self.linear_in = self.linear_out = None
        if config.linear_path:
            self.linear_in = nn.Conv2d(config.image_channels, config.latent_channels, block, stride=block)
            self.linear_out = nn.ConvTranspose2d(config.latent_channels, config.image_channels, block, stride=block)

    def latent(self, image: Tensor) -> Tensor:
        """Image ``(B, image channels, H, W)`` in [-1, 1] → latent before quantisation, ``(B, C, side, side)``."""
        latent: Tensor = self.quant_conv(self.encoder(image))
        return latent if self.linear_in is None else latent + self.linear_in(image)

    def _reconstruct(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(self.post_quant_conv(latent))
        return image if self.linear_out is None else image + self.linear_out(latent)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image ``(B, image channels, H, W)`` in [-1, 1] → K token maps ``(B, L_k)``."""
        return self.quantizer.encode(self.latent(image))

    def decode(self, latent: Tensor) -> Tensor:
        """Latent ``(B, C, side, side)`` → image ``(B, image channels, H, W)`` in [-1, 1]."""
        return self._reconstruct(latent).clamp(-1, 1)

    def forward(self, image: Tensor, depths: Tensor | None = None) -> tuple[Tensor, Quantized]:
        """Reconstruction for training, not clamped so that gradients pass, and the result of quantisation.

        ``depths``: see `MultiScaleQuantizer.forward`.
        """
        latent = self.latent(image).float()
        with torch.autocast(image.device.type, enabled=False):  # residual quantisation needs float32
            quantized = self.quantizer(latent, depths)
        return self._reconstruct(quantized.latent), quantized
