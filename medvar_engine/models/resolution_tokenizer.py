"""A tokenizer whose scales are resolutions of the image itself, from a thumbnail to the full resolution.

Scale ``k`` of side ``n`` works at ``n·p`` × ``n·p`` pixels. The residual of the coarser scales is cut into blocks of
``p`` × ``p`` pixels, and each block becomes one token: the nearest of the scale's own V patches (k-means). The sum of
the patches, enlarged to full size, is the *canvas*, a plain image. After the finest scale, a small network, the
refiner, maps the canvas to the image.

In a pyramid of latents (`medvar_engine.models.tokenizer`), nearly all detail is in the finest scale, whose tokens are
drawn independently of each other. Here each scale adds one band of spatial frequencies, as in a Laplacian pyramid, and
the residual of the finest scale depends little on neighbouring tokens.

A tokenizer of pairs also encodes masks (`medvar_engine.models.mask_canvas`): its canvas has additional channels for the
mask, which are encoded by additional scales among those of the image. Pairs are ``(B, 2, H, W)``; the second channel is
the number of the structure at each pixel. The tokens of a mask depend on the mask alone, so they can be frozen while an
image is drawn for it.

The canvas is stored as a latent: blocks of ``p`` × ``p`` pixels are folded into ``p²`` channels, ``(B, p², side,
side)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.models.fine_detail import BANDS, grain
from medvar_engine.models.interpolate import area_matrix, bicubic_matrix, resize
from medvar_engine.models.mask_canvas import MaskCanvas
from medvar_engine.models.tokenizer import ResidualBlock
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray

_FAINT = 0.01  # initial strength of the noise; from 0 it would get no gradient, because the sign of the noise is random


@dataclass(frozen=True)
class ResolutionConfig:
    """The architecture of a tokenizer of resolutions."""

    image_size: int  # pixels per side
    schedule: tuple[int, ...]
    vocabulary: int  # V, number of patches of each scale
    feature_channels: int = 128  # channels of scale features
    patch: int = 8  # p, pixels per side of one token at the resolution of its scale
    margin: int = 4  # pixels around the block of a token that its scale features include
    refiner_widths: tuple[int, int] = (32, 64)  # channels at one half and one quarter of the image's resolution
    refiner_blocks: int = 2  # residual blocks per resolution
    groups: int = 8  # groups of group normalisation
    grain: bool = False  # whether the refiner adds noise with a predicted local strength
    image_channels: int = 1
    structures: tuple[
        str, ...
    ] = ()  # names of the structures of masks, in the order of their values from 1 up; empty without masks
    colours: tuple[str, ...] = ()  # colours of the structures, as #rrggbb
    mask_scales: tuple[int, ...] = ()  # the scales that encode masks; the others encode the image
    mask_channels: int = 0  # D, channels of the mask in the canvas

    def __post_init__(self) -> None:
        if self.image_size != self.schedule[-1] * self.patch:
            raise ValueError(
                f"image_size {self.image_size} and patch {self.patch} give {self.image_size / self.patch:g} tokens per "
                f"side at the finest scale, but the schedule ends at {self.schedule[-1]}. The two must be equal."
            )
        if bool(self.structures) != bool(self.mask_scales) or bool(self.structures) != bool(self.mask_channels):
            raise ValueError("structures, mask_scales and mask_channels belong together: give all of them, or none.")
        scales = set(range(len(self.schedule)))
        if not set(self.mask_scales) <= scales - {len(scales) - 1} or len(self.colours) != len(self.structures):
            raise ValueError(
                "mask_scales must be scales other than the finest, and every structure must have a colour."
            )

    @property
    def canvas_channels(self) -> int:
        """Channels of the canvas: those of the image and of the mask."""
        return 1 + self.mask_channels

    @property
    def latent_channels(self) -> int:
        """Channels of the folded canvas."""
        return self.patch**2 * self.canvas_channels

    @property
    def input_channels(self) -> int:
        """Channels that are encoded and decoded: the image, and the mask as numbers of structures."""
        return 2 if self.structures else 1

    def coded(self, k: int) -> tuple[int, int]:
        """The channels ``begin:end`` of the folded canvas that scale k encodes: those of the mask or of the image."""
        area = self.patch**2
        return (area, self.latent_channels) if k in self.mask_scales else (0, area)


class ResolutionQuantizer(nn.Module):
    """The patches of each scale, and the fixed linear maps between canvas, scales and scale features."""

    def __init__(self, config: ResolutionConfig) -> None:
        super().__init__()
        self.schedule, self.vocabulary, self.channels = (
            ScaleSchedule(config.schedule),
            config.vocabulary,
            config.latent_channels,
        )
        self.patch, self.margin = config.patch, config.margin
        self.coded = tuple(config.coded(k) for k in range(len(config.schedule)))
        channels, window = config.feature_channels, config.patch + 2 * config.margin
        for k, side in enumerate(self.schedule):
            # Fitted to slices by `medvar_engine.train.stages.fit_patches`, not trained by gradients.
            begin, end = self.coded[k]
            self.register_buffer(f"patches_{k}", torch.zeros(config.vocabulary, end - begin))
            if k > 0:  # nothing precedes the coarsest scale
                self.register_buffer(
                    f"feature_kernels_{k}", torch.zeros(channels, config.canvas_channels, window, window)
                )
                self.register_buffer(f"feature_offsets_{k}", torch.zeros(channels))
            self.register_buffer(f"down_{k}", area_matrix(config.image_size, side * self.patch), persistent=False)
            self.register_buffer(f"up_{k}", bicubic_matrix(side * self.patch, config.image_size), persistent=False)
        lift = torch.zeros(1, config.canvas_channels, 1, 1, device="cpu")
        lift[:, 0] = 1.0  # black is -1, and the background is structure 0
        self.register_buffer("black", lift, persistent=False)

    @property
    def codes(self) -> FloatArray:
        """The contribution of every token of every scale to its block of the canvas; ``(K, V, p²)`` for an image."""
        patches = torch.stack([self._placed(self.patches(k), k) for k in range(len(self.schedule))])
        array: FloatArray = patches.detach().float().cpu().numpy()
        return array

    def patches(self, k: int) -> Tensor:
        """The patches of scale k: ``(V, p²)``, or ``(V, D·p²)`` for a scale of masks."""
        return self.get_buffer(f"patches_{k}")

    def _placed(self, folded: Tensor, k: int) -> Tensor:
        """The channels ``(B, …)`` of scale k at their position in the folded canvas; other channels are zero."""
        begin, end = self.coded[k]
        if end - begin == self.channels:
            return folded
        return F.pad(folded, (0, 0) * (folded.dim() - 2) + (begin, self.channels - end))

    def shrink(self, canvas: Tensor, k: int) -> Tensor:
        """Canvas ``(B, p², side, side)`` averaged to the resolution of scale k, ``(B, 1, n·p, n·p)``.

        A canvas with C·p² channels gives C channels.
        """
        image = F.pixel_shuffle(canvas, self.patch)
        return image if k + 1 == len(self.schedule) else resize(image, self.get_buffer(f"down_{k}"))

    def residual(self, canvas: Tensor, k: int) -> Tensor:
        """The residual of a canvas at scale k as blocks ``(B, L_k, p²)``, which patches approximate."""
        begin, end = self.coded[k]
        canvas = canvas[:, begin:end]
        return F.pixel_unshuffle(self.shrink(canvas, k), self.patch).flatten(2).transpose(1, 2)

    def pool(self, canvas: Tensor, k: int) -> Tensor:
        """Canvas → scale features of scale k ``(B, L_k, C)``, the input of the transformer.

        They are principal components of each block with a margin around it, scaled to about unit variance. The image is
        padded with black.
        """
        kernels, offsets = self.get_buffer(f"feature_kernels_{k}"), self.get_buffer(f"feature_offsets_{k}")
        image = self.shrink(canvas, k) + self.get_buffer("black")  # shifts black to 0, the value of padding
        return F.conv2d(image, kernels, offsets, stride=self.patch, padding=self.margin).flatten(2).transpose(1, 2)

    def lift(self, tokens: Tensor, k: int) -> Tensor:
        """Tokens ``(B, L_k)`` → their contribution to the canvas, ``(B, p², side, side)``."""
        return self.lift_blocks(self.patches(k)[tokens], k)

    def lift_blocks(self, blocks: Tensor, k: int) -> Tensor:
        """Blocks of scale k ``(B, L_k, p²)`` → their contribution to the canvas, ``(B, p², side, side)``."""
        side = self.schedule[k]
        blocks = blocks.transpose(1, 2).unflatten(2, (side, side))
        if k + 1 < len(self.schedule):
            image = resize(F.pixel_shuffle(blocks, self.patch), self.get_buffer(f"up_{k}"))
            blocks = F.pixel_unshuffle(image, self.patch)
        return self._placed(blocks, k)

    def nearest(self, vectors: Tensor, k: int) -> Tensor:
        """Index of scale k's patch nearest to each vector: ``(…, p²)`` → ``(…)``."""
        patches = self.patches(k)
        return (patches.square().sum(1) - 2 * vectors @ patches.T).argmin(-1)

    def encode(self, canvas: Tensor) -> tuple[Tensor, ...]:
        """An image folded like a canvas, ``(B, p², side, side)`` → K token maps ``(B, L_k)``."""
        rest, tokens = canvas, []
        for k in range(len(self.schedule)):
            tokens.append(self.nearest(self.residual(rest, k), k))
            rest = rest - self.lift(tokens[-1], k)
        return tuple(tokens)

    def decode(self, tokens: tuple[Tensor, ...]) -> Tensor:
        """The first k token maps (a prefix of any length ≥ 1) → canvas ``(B, p², side, side)``."""
        return torch.stack([self.lift(t, k) for k, t in enumerate(tokens)]).sum(0)

    def scale_features(self, tokens: tuple[Tensor, ...]) -> Tensor:
        """Scale features of scales 1…K-1 for teacher forcing: ``(B, L - L_0, C)``."""
        canvas, parts = self.lift(tokens[0], 0), []
        for k, token_map in enumerate(tokens[1:], 1):
            parts.append(self.pool(canvas, k))
            canvas = canvas + self.lift(token_map, k)
        return torch.cat(parts, dim=1)


class Refiner(nn.Module):
    """Maps the canvas to the image: adds detail that patches cannot encode, and removes seams. Starts as the identity.

    The random part of an image, such as its noise, cannot be predicted from the canvas. With ``grain``, the refiner
    therefore also predicts the local strength of added noise, like the noise inputs of StyleGAN (arXiv 1812.04948) and
    film grain synthesis. The noise is constant, so that the same canvas gives the same image. In training it is shifted
    at random, so that the network cannot learn its pattern.

    For a pair, the refiner also refines the scores of the structures. Image and mask are refined jointly.
    """

    def __init__(self, config: ResolutionConfig) -> None:
        super().__init__()
        (wide, narrow), groups, blocks = config.refiner_widths, config.groups, config.refiner_blocks

        def level(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width, width, groups) for _ in range(blocks)))

        self.patch, self.channels = config.patch, config.image_channels
        self.conv_in = nn.Conv2d(4 * config.canvas_channels, wide, 3, padding=1)
        self.fine_in = level(wide)
        self.down = nn.Conv2d(4 * wide, narrow, 1)
        self.coarse = level(narrow)
        self.up = nn.Conv2d(narrow, 4 * wide, 1)
        self.fine_out = level(wide)
        self.norm_out = nn.GroupNorm(groups, wide, eps=1e-6)
        self.of_image = config.image_channels * (1 + BANDS * config.grain)
        made = self.of_image + (len(config.structures) + 1 if config.structures else 0)
        self.conv_out = nn.Conv2d(wide, 4 * made, 3, padding=1)
        self.grain: Tensor | None
        self.register_buffer("grain", grain(config.image_size) if config.grain else None, persistent=False)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, canvas: Tensor, plain: Tensor) -> Tensor:
        """Canvas ``(B, p², side, side)`` and its plain image → refined image ``(B, 1, H, W)``, with scores for a pair.

        The result is not clamped.
        """
        fine = self.fine_in(self.conv_in(F.pixel_unshuffle(F.pixel_shuffle(canvas, self.patch), 2)))
        coarse = self.coarse(self.down(F.pixel_unshuffle(fine, 2)))
        fine = self.fine_out(fine + F.pixel_shuffle(self.up(coarse), 2))
        made = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(fine))), 2)
        added = made[:, : self.of_image].unflatten(1, (self.channels, -1))
        image = plain[:, : self.channels] + added[:, :, 0]
        if self.grain is not None:
            noise = _moved(self.grain, len(canvas)) if self.training else self.grain
            image = image + (added[:, :, 1:] * noise).sum(2)
        if made.shape[1] == self.of_image:
            return image
        return torch.cat((image, plain[:, self.channels :] + made[:, self.of_image :]), 1)


def _moved(noise: Tensor, count: int) -> Tensor:
    """Noise ``(N, H, W)`` with a different random shift for each of ``count`` images: ``(B, 1, N, H, W)``."""
    height, width = noise.shape[1:]
    down, across = torch.randint(height, (2, count, 1), device=noise.device)
    rows = (torch.arange(height, device=noise.device) + down) % height
    columns = (torch.arange(width, device=noise.device) + across) % width
    return noise[:, rows[:, :, None], columns[:, None]].transpose(0, 1).unsqueeze(1)


class ResolutionTokenizer(nn.Module):
    """Encodes images as a pyramid of resolutions, and decodes them."""

    def __init__(self, config: ResolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = ScaleSchedule(config.schedule)
        self.quantizer = ResolutionQuantizer(config)
        self.refiner = Refiner(config)
        self.mask = MaskCanvas(len(config.structures), config.mask_channels) if config.structures else None

    def forward(self, canvas: Tensor) -> Tensor:
        """The refiner's output for training, like `decode` but not clamped, so that gradients pass.

        Returns ``(B, 1, H, W)``; for a pair ``(B, 1 + M + 1, H, W)``, the image and the scores of background and
        structures.
        """
        return self.refiner(canvas, self._plain(canvas))  # type: ignore[no-any-return]

    def latent(self, image: Tensor) -> Tensor:
        """Image ``(B, 1, H, W)`` in [-1, 1], or pair ``(B, 2, H, W)`` → a canvas that equals the image."""
        if self.mask is not None:
            image = torch.cat((image[:, :1], self.mask.draw(image[:, 1:])), 1)
        return F.pixel_unshuffle(image, self.config.patch)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image ``(B, 1, H, W)`` in [-1, 1], or pair ``(B, 2, H, W)`` → K token maps ``(B, L_k)``."""
        return self.quantizer.encode(self.latent(image))

    def preview(self, canvas: Tensor) -> Tensor:
        """Canvas ``(B, p², side, side)`` → plain image ``(B, 1, H, W)`` in [-1, 1], or pair, without the refiner."""
        return self._shown(self._plain(canvas))

    def decode(self, canvas: Tensor) -> Tensor:
        """Canvas ``(B, p², side, side)`` of all scales → refined image ``(B, 1, H, W)`` in [-1, 1], or pair."""
        return self._shown(self.forward(canvas))

    def _plain(self, canvas: Tensor) -> Tensor:
        """The canvas as an image ``(B, 1, H, W)``, for a pair with the scores ``(B, M + 1, H, W)``."""
        image = F.pixel_shuffle(canvas, self.config.patch)
        return image if self.mask is None else torch.cat((image[:, :1], self.mask.scores(image[:, 1:])), 1)

    def _shown(self, output: Tensor) -> Tensor:
        """The output as image or pair: scores are replaced by the number of the highest one."""
        if self.mask is None:
            return output.clamp(-1, 1)
        return torch.cat((output[:, :1].clamp(-1, 1), output[:, 1:].argmax(1, keepdim=True).to(output.dtype)), 1)


def with_grain(model: ResolutionTokenizer) -> ResolutionTokenizer:
    """A copy whose refiner also adds noise, at first very little; the model itself if it adds noise already."""
    if model.config.grain:
        return model
    config = replace(model.config, grain=True)
    grainy, state = ResolutionTokenizer(config), model.state_dict()
    for name in ("refiner.conv_out.weight", "refiner.conv_out.bias"):
        own, scores = state[name].split((4 * config.image_channels, len(state[name]) - 4 * config.image_channels))
        old = own.unflatten(0, (config.image_channels, 1, 4))
        new = old.new_full((config.image_channels, BANDS, *old.shape[2:]), _FAINT if name.endswith("bias") else 0.0)
        state[name] = torch.cat([torch.cat([old, new], 1).flatten(0, 2), scores])
    grainy.load_state_dict(state)
    return grainy.to(next(model.parameters()).device).train(model.training)
