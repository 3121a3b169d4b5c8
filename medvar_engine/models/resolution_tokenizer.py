"""A tokenizer whose scales are resolutions of the image itself: thumbnails, each sharper than the one before.

Scale ``k`` of side ``n`` sees the image at ``n·p`` × ``n·p`` pixels. What the coarser scales leave of it is cut into
blocks of ``p`` × ``p`` pixels, and each block becomes one token: the nearest of the scale's own V patches (k-means).
The sum of the patches, enlarged to full size, is the *canvas*, a plain image. After the finest scale a small network,
the refiner, turns the canvas into the image.

A pyramid of latents (`medvar_engine.models.tokenizer`) leaves nearly all detail to its finest scale, whose tokens are
drawn independently of each other. Here each scale adds one band of spatial frequencies, as in a Laplacian pyramid, and
what is left to the finest depends little on neighbouring tokens.

A tokenizer of pairs codes masks as well (`medvar_engine.models.mask_canvas`): its canvas has channels of the mask
beside the image's, and scales of its own code them, among those of the image. Pairs enter and leave it as
``(B, 2, H, W)``, the second channel the number of the structure that a pixel shows. A mask's tokens depend on the mask
alone, so that a given mask can be held while an image is drawn to it.

The canvas is kept as a latent: blocks of ``p`` × ``p`` pixels folded into ``p²`` channels, ``(B, p², side, side)``.
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
    structures: tuple[str, ...] = ()  # what the values of masks stand for, from 1 up; none without masks
    colours: tuple[str, ...] = ()  # of the structures, as #rrggbb
    mask_scales: tuple[int, ...] = ()  # the scales that code masks; the others code the image
    mask_channels: int = 0  # D, of the mask in the canvas

    def __post_init__(self) -> None:
        if self.image_size != self.schedule[-1] * self.patch:
            raise ValueError(
                f"image_size {self.image_size} and patch {self.patch} give {self.image_size / self.patch:g} tokens a "
                f"side at the finest scale, but the schedule ends at {self.schedule[-1]}; make them agree."
            )
        if bool(self.structures) != bool(self.mask_scales) or bool(self.structures) != bool(self.mask_channels):
            raise ValueError("structures, mask_scales and mask_channels go together: give all of them, or none.")
        scales = set(range(len(self.schedule)))
        if not set(self.mask_scales) <= scales - {len(scales) - 1} or len(self.colours) != len(self.structures):
            raise ValueError("mask_scales are scales but the finest, and every structure has a colour.")

    @property
    def canvas_channels(self) -> int:
        """Channels of the canvas: the image's, and those of the mask."""
        return 1 + self.mask_channels

    @property
    def latent_channels(self) -> int:
        """Channels of the folded canvas."""
        return self.patch**2 * self.canvas_channels

    @property
    def input_channels(self) -> int:
        """Channels of what is encoded and decoded: the image, and the mask as numbers of structures."""
        return 2 if self.structures else 1

    def coded(self, k: int) -> tuple[int, int]:
        """Which channels ``begin:end`` of the canvas scale k codes."""
        return (1, self.canvas_channels) if k in self.mask_scales else (0, 1)


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
        self.coded = tuple(config.coded(k) for k in range(len(config.schedule)))
        channels, window = config.feature_channels, config.patch + 2 * config.margin
        for k, side in enumerate(self.schedule):
            # Fitted to slices by `medvar_engine.train.stages.fit_patches`, not learned by gradients.
            begin, end = self.coded[k]
            self.register_buffer(f"patches_{k}", torch.zeros(config.vocabulary, (end - begin) * self.patch**2))
            if k > 0:  # nothing precedes the coarsest scale
                self.register_buffer(
                    f"feature_kernels_{k}", torch.zeros(channels, config.canvas_channels, window, window)
                )
                self.register_buffer(f"feature_offsets_{k}", torch.zeros(channels))
            self.register_buffer(f"down_{k}", area_matrix(config.image_size, side * self.patch), persistent=False)
            self.register_buffer(f"up_{k}", bicubic_matrix(side * self.patch, config.image_size), persistent=False)
        lift = torch.zeros(1, config.canvas_channels, 1, 1, device="cpu")
        lift[:, 0] = 1.0  # black is -1, and no structure 0
        self.register_buffer("black", lift, persistent=False)

    @property
    def codes(self) -> FloatArray:
        """What every token of every scale adds to its block of the canvas's channels, ``(K, V, p²)`` of an image."""
        patches = torch.stack([self._placed(self.patches(k), k) for k in range(len(self.schedule))])
        array: FloatArray = patches.detach().float().cpu().numpy()
        return array

    def patches(self, k: int) -> Tensor:
        """The patches of scale k, ``(V, p²)``, or ``(V, D·p²)`` of a scale of masks."""
        return self.get_buffer(f"patches_{k}")

    def _placed(self, folded: Tensor, k: int) -> Tensor:
        """Channels that scale k codes ``(B, …)``, in their place among those of the folded canvas, others zero."""
        begin, end = (channel * self.patch**2 for channel in self.coded[k])
        if end - begin == self.channels:
            return folded
        return F.pad(folded, (0, 0) * (folded.dim() - 2) + (begin, self.channels - end))

    def shrink(self, canvas: Tensor, k: int) -> Tensor:
        """Canvas ``(B, p², side, side)`` averaged to the resolution of scale k: ``(B, 1, n·p, n·p)``.

        Of a canvas of more channels, or of some of them, as many as these.
        """
        image = F.pixel_shuffle(canvas, self.patch)
        return image if k + 1 == len(self.schedule) else resize(image, self.get_buffer(f"down_{k}"))

    def residual(self, canvas: Tensor, k: int) -> Tensor:
        """What is left of a canvas as blocks at the resolution of scale k, ``(B, L_k, p²)``: what patches stand for."""
        begin, end = (channel * self.patch**2 for channel in self.coded[k])
        canvas = canvas[:, begin:end]
        return F.pixel_unshuffle(self.shrink(canvas, k), self.patch).flatten(2).transpose(1, 2)

    def pool(self, canvas: Tensor, k: int) -> Tensor:
        """Canvas → scale features of scale k ``(B, L_k, C)``: what the transformer is shown.

        Principal components of each block with a margin around it, all of about unit variance. Beyond the edge of the
        image is black.
        """
        kernels, offsets = self.get_buffer(f"feature_kernels_{k}"), self.get_buffer(f"feature_offsets_{k}")
        image = self.shrink(canvas, k) + self.get_buffer("black")  # black is 0, as padding is
        return F.conv2d(image, kernels, offsets, stride=self.patch, padding=self.margin).flatten(2).transpose(1, 2)

    def lift(self, tokens: Tensor, k: int) -> Tensor:
        """Tokens ``(B, L_k)`` → what they add to the canvas, ``(B, p², side, side)``."""
        side = self.schedule[k]
        blocks = self.patches(k)[tokens].transpose(1, 2).unflatten(2, (side, side))
        if k + 1 < len(self.schedule):
            image = resize(F.pixel_shuffle(blocks, self.patch), self.get_buffer(f"up_{k}"))
            blocks = F.pixel_unshuffle(image, self.patch)
        return self._placed(blocks, k)

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

    Of a pair it does so with the scores of the structures as well, of which it sees the image, and of that the mask.
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
        """``(B, p², side, side)``, and what it shows as it is → ``(B, 1, H, W)`` or with scores, not clamped."""
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
        self.mask = MaskCanvas(len(config.structures), config.mask_channels) if config.structures else None

    def forward(self, canvas: Tensor) -> Tensor:
        """One training step of the refiner: `decode`, not clamped so that gradients pass, and with scores of pixels.

        ``(B, 1, H, W)``; of a pair ``(B, 1 + M + 1, H, W)``, the image and the scores of background and structures.
        """
        return self.refiner(canvas, self._plain(canvas))  # type: ignore[no-any-return]

    def latent(self, image: Tensor) -> Tensor:
        """Image ``(B, 1, H, W)`` in [-1, 1], or pair ``(B, 2, H, W)`` → the canvas that would be the image itself."""
        if self.mask is not None:
            image = torch.cat((image[:, :1], self.mask.draw(image[:, 1:])), 1)
        return F.pixel_unshuffle(image, self.config.patch)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image ``(B, 1, H, W)`` in [-1, 1], or pair ``(B, 2, H, W)`` → K token maps ``(B, L_k)``."""
        return self.quantizer.encode(self.latent(image))

    def preview(self, canvas: Tensor) -> Tensor:
        """Canvas ``(B, p², side, side)`` → itself as an image ``(B, 1, H, W)`` in [-1, 1], or as a pair."""
        return self._shown(self._plain(canvas))

    def decode(self, canvas: Tensor) -> Tensor:
        """Canvas ``(B, p², side, side)`` of all scales → image ``(B, 1, H, W)`` in [-1, 1], or pair."""
        return self._shown(self.forward(canvas))

    def _plain(self, canvas: Tensor) -> Tensor:
        """The canvas's image ``(B, 1, H, W)``, and of a pair the scores ``(B, M + 1, H, W)``."""
        image = F.pixel_shuffle(canvas, self.config.patch)
        return image if self.mask is None else torch.cat((image[:, :1], self.mask.scores(image[:, 1:])), 1)

    def _shown(self, output: Tensor) -> Tensor:
        """Of scores, the number of the highest."""
        if self.mask is None:
            return output.clamp(-1, 1)
        return torch.cat((output[:, :1].clamp(-1, 1), output[:, 1:].argmax(1, keepdim=True).to(output.dtype)), 1)


def with_grain(model: ResolutionTokenizer) -> ResolutionTokenizer:
    """A copy whose refiner also adds noise, so far hardly any; the model itself when it does so already."""
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
