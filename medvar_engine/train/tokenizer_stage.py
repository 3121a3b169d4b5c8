"""Stage ``tokenizer``: image → token pyramid → image."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.arrays import FloatArray
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.models.feature_network import load_feature_network
from medvar_engine.models.files import load_tokenizer, save_tokenizer
from medvar_engine.models.gray import as_gray
from medvar_engine.models.presets import tokenizer_preset
from medvar_engine.models.quantizer import Quantized
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.train.augment import augment
from medvar_engine.train.batches import Draw, check_size, draw_of, in_hounsfield, spread
from medvar_engine.train.codebook import CodebookFollower, Use
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.images import ladder, write_grid
from medvar_engine.train.losses import (
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    frequency_loss,
    gradient_loss,
    psnr,
    ssim,
)
from medvar_engine.train.scores import Scores, codes_used
from medvar_engine.train.stage import Batch, Figures
from medvar_engine.train.world import World

SHOWN = 8  # held-out slices in a sample grid


class TokenizerStage:
    """Reconstruction, gradient and codebook losses, restarts of dead codes, and optionally a critic."""

    def __init__(self, config: TrainConfig, train: SliceDataset, held_out: SliceDataset, world: World) -> None:
        self.config, self.held_out, self.world, device = config, held_out, world, world.device
        torch.manual_seed(config.seed)
        self.model: Tokenizer = _start(config).to(device)
        self.network: nn.Module = self.model
        if config.compile:
            self.model.compile()
        check_size(train, self.model.config.image_size)
        self.batches = ImageBatches(train, draw_of(train.conditions, config, world))
        channels = self.model.config.image_channels
        self.critic = PatchDiscriminator(channels).to(device) if config.adversarial > 0 else None
        self.features = None
        if config.feature_network is not None:
            self.features = load_feature_network(config.feature_network).to(device)
        if config.codebook_learning == "gradient" and not config.decoder_only:
            self.model.quantizer.codebook.requires_grad_(True)
        self.codebook = CodebookFollower(self.model.quantizer).to(device)
        if config.tokenizer is not None:
            self.codebook.adopt(self.model.quantizer, config.batch_size)
        self.state = {"codebook": self.codebook}
        self._seen: list[tuple[Tensor, Tensor]] = []  # the parts of this step's batch, real and made, for the critic
        self._quantized: list[Quantized] = []  # the same parts, for the codebook

    def before_step(self, step: int) -> None:
        """Forget the last batch."""
        self._seen, self._quantized = [], []

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Figures]:
        """Weighted sum of the losses of one part of a batch."""
        config, (images, hounsfield) = self.config, batch
        if config.augment:
            images = augment(images, hounsfield)
        output, quantized = self.network(images, self._depths(len(images), step))
        output = output.float()
        l1, l2 = F.l1_loss(output, images), F.mse_loss(output, images)
        total = config.l1 * l1 + config.l2 * l2 + config.gradient * gradient_loss(output, images)
        if config.frequency:
            total = total + config.frequency * frequency_loss(output, images)
        if config.perceptual and self.features is not None:
            total = total + config.perceptual * self.features.distance(output, images).mean()
        figures: Figures = {
            "l1": l1.detach(),
            "psnr": psnr(output.detach(), images).mean(),
            "codebook": quantized.loss.detach(),
        }
        if self.critic and step >= config.adversarial_start * config.steps:
            self.critic.requires_grad_(False)
            adversarial = -self.critic(output).mean()
            last = self.model.decoder.conv_out.weight
            total = total + config.adversarial * adaptive_weight(total, adversarial, last) * adversarial
            self._seen.append((images, output.detach()))
        self._quantized.append(quantized)
        return total + config.codebook * quantized.loss, figures

    def critic_losses(self) -> Iterator[Tensor]:
        """The discriminator's loss on every part of the batch just seen, once it has joined."""
        if self.critic is not None:
            self.critic.requires_grad_(True)
            for real, made in self._seen:
                yield discriminator_loss(self.critic(real), self.critic(made))

    def after_step(self, step: int) -> None:
        """Move the codebook after the batch just seen, and restart codes that no scale has used for a while."""
        config, quantizer = self.config, self.model.quantizer
        if config.decoder_only:
            return
        fresh = not self.codebook.started
        use = functools.reduce(operator.add, (Use.of(quantizer, part) for part in self._quantized))
        if config.codebook_learning == "average":
            self.codebook.follow(quantizer, use.everywhere(self.world))
        else:
            self.codebook.keep_count(quantizer, use.everywhere(self.world))
        if fresh:
            self.codebook.restart_all(quantizer, self._quantized[0])
        elif (step + 1) % config.restart_every == 0 and step < config.restart_until * config.steps:
            self.codebook.restart_dead(quantizer, self._quantized[0])
        else:
            return
        self.codebook.same_everywhere(quantizer, self.world)

    def validate(self, model: nn.Module, folder: Path | None) -> dict[str, float]:
        """Likeness on held-out patients, overall and by region; how many codes every scale uses, and how evenly."""
        assert isinstance(model, Tokenizer)
        index = spread(len(self.held_out), self.config.validate_slices)
        scores = Scores()
        counts = torch.zeros(len(model.schedule), model.config.vocabulary, dtype=torch.int64)
        for part in np.array_split(index, -(-len(index) // self.config.batch_size)):
            images = torch.from_numpy(self.held_out.batch(part)).to(self.world.device)
            tokens = model.encode(images)
            for count, token_map in zip(counts, tokens, strict=True):
                count += token_map.flatten().bincount(minlength=len(count)).cpu()
            output = model.decode(model.quantizer.decode(tokens))
            conditions = [self.held_out.conditions[int(i)] for i in part]
            scores.add("psnr", psnr(output, images), conditions)
            scores.add("ssim", ssim(output, images), conditions)
            if self.features is not None:
                scores.add("feature_distance", self.features.distance(output, images), conditions)
        if folder is not None:
            self._show(model, folder)
        return scores.means() | codes_used(counts)

    def held_out_loss(self, figures: Mapping[str, float]) -> float:
        """What is to fall."""
        return -figures["held_out_psnr"]

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the tokenizer as one file."""
        assert isinstance(model, Tokenizer)
        save_tokenizer(path, model)

    def _show(self, model: Tokenizer, folder: Path) -> None:
        """Each row: a held-out slice, then its previews from the coarsest scale to the finest."""
        images = torch.from_numpy(self.held_out.batch(spread(len(self.held_out), SHOWN))).to(self.world.device)
        rows = torch.cat([images[:, None], ladder(model, model.encode(images))], 1)
        write_grid(folder / "reconstructions.png", rows.flatten(0, 1), rows.shape[1])

    def _depths(self, count: int, step: int) -> Tensor:
        """How many scales of each image the decoder sees; K + 1 is the latent before quantisation."""
        scales, config = len(self.model.schedule), self.config
        shallow = torch.rand(count, device=self.world.device) < config.random_depth
        depths = torch.where(shallow, torch.randint(1, scales + 1, (count,), device=self.world.device), scales)
        if config.tokenizer is not None:  # what is trained already has no need of fading in
            return depths
        fading = 1 - step / max(1, config.continuous * config.steps)
        return torch.where(torch.rand(count, device=self.world.device) < fading, scales + 1, depths)


@dataclass(frozen=True)
class ImageBatches:
    """The slices of each part of each step."""

    data: SliceDataset
    draw: Draw

    def __getitem__(self, key: tuple[int, int]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """``(B, 1, H, W)``, and which of them are CT, ``(B,)``."""
        index, _ = self.draw(*key)
        return self.data.batch(index), in_hounsfield(self.data, index)


def _start(config: TrainConfig) -> Tokenizer:
    """A new tokenizer, or a trained one to go on with."""
    if config.tokenizer is None:
        return Tokenizer(tokenizer_preset(config.preset, config.image_size))
    model = as_gray(load_tokenizer(config.tokenizer))
    if config.decoder_only:
        keep_tokens(model)
    return model


def keep_tokens(model: Tokenizer) -> None:
    """Hold still what the tokens of an image depend on; the decoder learns."""
    for part in (model.encoder, model.quant_conv, model.quantizer, model.linear_in):
        if part is not None:
            part.requires_grad_(False)
