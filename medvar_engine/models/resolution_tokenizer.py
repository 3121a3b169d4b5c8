"""A tokenizer whose scales are resolutions of the image itself: thumbnails, each sharper than the one before.

Scale ``k`` of side ``n`` sees the image at ``n·p`` × ``n·p`` pixels. What the coarser scales leave of it is cut into
blocks of ``p`` × ``p`` pixels, and each block becomes one token: the nearest of the scale's own V patches (k-means).
The sum of the patches, enlarged to full size, is the *canvas*, a plain image. After the finest scale a small network,
the refiner, turns the canvas into the image.

A pyramid of latents (`medvar_engine.models.tokenizer`) leaves nearly all detail to its finest scale, whose tokens are
drawn independently of each other. Here each scale adds one band of spatial frequencies, as in a Laplacian pyramid, and
what is left to the finest depends little on neighbouring tokens.

The canvas is kept as a latent: blocks of ``p`` × ``p`` pixels folded into ``p²`` channels, ``(B, p², side, side)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.models.fine_detail import BANDS, grain
from medvar_engine.models.interpolate import area_matrix, bicubic_matrix, resize
from medvar_engine.models.tokenizer import ResidualBlock
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray

_FAINT = 0.01  # of noise before the refiner has learned of it; from 0 it would not learn, for its sign says nothing


@dataclass(frozen=True)
class ResolutionConfig:
    """Everything that fixes the shape of a tokenizer of resolutions."""

    image_size: int  # pixels of a side
    schedule: tuple[int, ...]
    vocabulary: int  # V, patches of each scale
    feature_channels: int = 128  # of a token's scale features
    patch: int = 8  # p, pixels of a side of one token at its scale's resolution
    margin: int = 4  # pixels around a token's block that its scale features show as well
    refiner_widths: tuple[int, int] = (32, 64)  # channels at a half and at a quarter of the image's resolution
    refiner_blocks: int = 2  # residual blocks a resolution
    groups: int = 8  # of group normalisation
    grain: bool = False  # whether the refiner adds noise, as strong at each place as it finds right
    image_channels: int = 1

    def __post_init__(self) -> None:
        if self.image_size != self.schedule[-1] * self.patch:
            raise ValueError(
                f"image_size {self.image_size} and patch {self.patch} give {self.image_size / self.patch:g} tokens a "
                f"side at the finest scale, but the schedule ends at {self.schedule[-1]}; make them agree."
            )

    @property
    def latent_channels(self) -> int:
        """Channels of the folded canvas."""
        return self.patch**2


class ResolutionQuantizer(nn.Module):
    """Patches of each scale, and the fixed maps between canvas, scales and scale features."""

    def __init__(self, config: ResolutionConfig) -> None:
        super().__init__()
        self.schedule, self.vocabulary, self.channels = (
            ScaleSchedule(config.schedule),
            config.vocabulary,
            config.latent_channels,
        )
        self.patch, self.margin = config.patch, config.margin
        channels, window = config.feature_channels, config.patch + 2 * config.margin
        for k, side in enumerate(self.schedule):
            # Fitted to slices by `medvar_engine.train.stages.fit_patches`, not learned by gradients.
            self.register_buffer(f"patches_{k}", torch.zeros(config.vocabulary, self.channels))
            if k > 0:  # nothing precedes the coarsest scale
                self.register_buffer(f"feature_kernels_{k}", torch.zeros(channels, 1, window, window))
                self.register_buffer(f"feature_offsets_{k}", torch.zeros(channels))
            self.register_buffer(f"down_{k}", area_matrix(config.image_size, side * self.patch), persistent=False)
            self.register_buffer(f"up_{k}", bicubic_matrix(side * self.patch, config.image_size), persistent=False)

    @property
    def codes(self) -> FloatArray:
        """The patch of every token of every scale, ``(K, V, p²)``."""
        patches = torch.stack([self.patches(k) for k in range(len(self.schedule))])
        array: FloatArray = patches.detach().float().cpu().numpy()
        return array

    def patches(self, k: int) -> Tensor:
        """The patches of scale k, ``(V, p²)``."""
        return self.get_buffer(f"patches_{k}")

    def shrink(self, canvas: Tensor, k: int) -> Tensor:
        """Canvas ``(B, p², side, side)`` averaged to the resolution of scale k: ``(B, 1, n·p, n·p)``."""
        image = F.pixel_shuffle(canvas, self.patch)
        return image if k + 1 == len(self.schedule) else resize(image, self.get_buffer(f"down_{k}"))

    def residual(self, canvas: Tensor, k: int) -> Tensor:
        """What is left of a canvas as blocks at the resolution of scale k, ``(B, L_k, p²)``: what patches stand for."""
        return F.pixel_unshuffle(self.shrink(canvas, k), self.patch).flatten(2).transpose(1, 2)

    def pool(self, canvas: Tensor, k: int) -> Tensor:
        """Canvas → scale features of scale k ``(B, L_k, C)``: what the transformer is shown.

        Principal components of each block with a margin around it, all of about unit variance. Beyond the edge of the
        image is black.
        """
        kernels, offsets = self.get_buffer(f"feature_kernels_{k}"), self.get_buffer(f"feature_offsets_{k}")
        image = self.shrink(canvas, k) + 1  # black is 0, as padding is
        return F.conv2d(image, kernels, offsets, stride=self.patch, padding=self.margin).flatten(2).transpose(1, 2)

    def lift(self, tokens: Tensor, k: int) -> Tensor:
        """Tokens ``(B, L_k)`` → what they add to the canvas, ``(B, p², side, side)``."""
        side = self.schedule[k]
        blocks = self.patches(k)[tokens].transpose(1, 2).unflatten(2, (side, side))
        if k + 1 == len(self.schedule):
            return blocks
        image = resize(F.pixel_shuffle(blocks, self.patch), self.get_buffer(f"up_{k}"))
        return F.pixel_unshuffle(image, self.patch)

    def nearest(self, vectors: Tensor, k: int) -> Tensor:
        """Index of scale k's patch nearest to each vector: ``(…, p²)`` → ``(…)``."""
        patches = self.patches(k)
        return (patches.square().sum(1) - 2 * vectors @ patches.T).argmin(-1)

    def encode(self, canvas: Tensor) -> tuple[Tensor, ...]:
        """An image folded as a canvas is → K token maps ``(B, L_k)``."""
        rest, tokens = canvas, []
        for k in range(len(self.schedule)):
            tokens.append(self.nearest(self.residual(rest, k), k))
            rest = rest - self.lift(tokens[-1], k)
        return tuple(tokens)

    def decode(self, tokens: tuple[Tensor, ...]) -> Tensor:
        """The first k token maps (a prefix of any length ≥ 1) → canvas ``(B, p², side, side)``."""
        return torch.stack([self.lift(t, k) for k, t in enumerate(tokens)]).sum(0)

    def features(self, tokens: tuple[Tensor, ...]) -> Tensor:
        """Teacher-forcing input of scales 1…K-1: ``(B, L - L_0, C)``."""
        canvas, parts = self.lift(tokens[0], 0), []
        for k, token_map in enumerate(tokens[1:], 1):
            parts.append(self.pool(canvas, k))
            canvas = canvas + self.lift(token_map, k)
        return torch.cat(parts, dim=1)


class Refiner(nn.Module):
    """Canvas → image: adds what patches cannot say, and mends the seams between them. Starts as the identity.

    What is random in an image, such as its grain, no network can tell from the canvas. So with ``grain`` the refiner
    also says how strong noise is at each place: as the noise inputs of StyleGAN (arXiv 1812.04948) and film grain
    synthesis do. The noise is a constant, so the same canvas gives the same image; it is only moved about in training,
    lest the network learn its pattern.
    """

    def __init__(self, config: ResolutionConfig) -> None:
        super().__init__()
        (wide, narrow), groups, blocks = config.refiner_widths, config.groups, config.refiner_blocks

        def level(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width, width, groups) for _ in range(blocks)))

        self.patch, self.channels = config.patch, config.image_channels
        self.conv_in = nn.Conv2d(4 * config.image_channels, wide, 3, padding=1)
        self.fine_in = level(wide)
        self.down = nn.Conv2d(4 * wide, narrow, 1)
        self.coarse = level(narrow)
        self.up = nn.Conv2d(narrow, 4 * wide, 1)
        self.fine_out = level(wide)
        self.norm_out = nn.GroupNorm(groups, wide, eps=1e-6)
        self.conv_out = nn.Conv2d(wide, 4 * config.image_channels * (1 + BANDS * config.grain), 3, padding=1)
        self.grain: Tensor | None
        self.register_buffer("grain", grain(config.image_size) if config.grain else None, persistent=False)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, canvas: Tensor) -> Tensor:
        """``(B, p², side, side)`` → ``(B, 1, H, W)``, not clamped."""
        image = F.pixel_shuffle(canvas, self.patch)
        fine = self.fine_in(self.conv_in(F.pixel_unshuffle(image, 2)))
        coarse = self.coarse(self.down(F.pixel_unshuffle(fine, 2)))
        fine = self.fine_out(fine + F.pixel_shuffle(self.up(coarse), 2))
        added = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(fine))), 2).unflatten(1, (self.channels, -1))
        image = image + added[:, :, 0]
        if self.grain is None:
            return image
        noise = _moved(self.grain, len(canvas)) if self.training else self.grain
        return image + (added[:, :, 1:] * noise).sum(2)


def _moved(noise: Tensor, count: int) -> Tensor:
    """Noise ``(N, H, W)`` shifted at random, once for each of ``count`` images: ``(B, 1, N, H, W)``."""
    height, width = noise.shape[1:]
    down, across = torch.randint(height, (2, count, 1), device=noise.device)
    rows = (torch.arange(height, device=noise.device) + down) % height
    columns = (torch.arange(width, device=noise.device) + across) % width
    return noise[:, rows[:, :, None], columns[:, None]].transpose(0, 1).unsqueeze(1)


class ResolutionTokenizer(nn.Module):
    """Image ↔ pyramid of resolutions."""

    def __init__(self, config: ResolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = ScaleSchedule(config.schedule)
        self.quantizer = ResolutionQuantizer(config)
        self.refiner = Refiner(config)

    def forward(self, canvas: Tensor) -> Tensor:
        """One training step of the refiner: `decode`, not clamped so that gradients pass."""
        return self.refiner(canvas)  # type: ignore[no-any-return]

    def latent(self, image: Tensor) -> Tensor:
        """Image ``(B, 1, H, W)`` in [-1, 1] → the canvas that would be the image itself."""
        return F.pixel_unshuffle(image, self.config.patch)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image ``(B, 1, H, W)`` in [-1, 1] → K token maps ``(B, L_k)``."""
        return self.quantizer.encode(self.latent(image))

    def preview(self, canvas: Tensor) -> Tensor:
        """Canvas ``(B, p², side, side)`` → itself as an image ``(B, 1, H, W)`` in [-1, 1]."""
        return F.pixel_shuffle(canvas, self.config.patch).clamp(-1, 1)

    def decode(self, canvas: Tensor) -> Tensor:
        """Canvas ``(B, p², side, side)`` of all scales → image ``(B, 1, H, W)`` in [-1, 1]."""
        return self.refiner(canvas).clamp(-1, 1)  # type: ignore[no-any-return]


def with_grain(model: ResolutionTokenizer) -> ResolutionTokenizer:
    """A copy whose refiner also adds noise, so far hardly any; the model itself when it does so already."""
    if model.config.grain:
        return model
    config = replace(model.config, grain=True)
    grainy, state = ResolutionTokenizer(config), model.state_dict()
    for name in ("refiner.conv_out.weight", "refiner.conv_out.bias"):
        old = state[name].unflatten(0, (config.image_channels, 1, 4))
        new = old.new_full((config.image_channels, BANDS, *old.shape[2:]), _FAINT if name.endswith("bias") else 0.0)
        state[name] = torch.cat([old, new], 1).flatten(0, 2)
    grainy.load_state_dict(state)
    return grainy.to(next(model.parameters()).device).train(model.training)
