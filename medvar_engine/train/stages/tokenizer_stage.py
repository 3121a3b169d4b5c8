"""Stage ``tokenizer``: trains an autoencoder with a token pyramid as its code."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.metric_log import Metric
from medvar_engine.models.grey import as_grey
from medvar_engine.models.presets import tokenizer_preset
from medvar_engine.models.quantizer import Quantized
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.weight_files import load_tokenizer, save_tokenizer
from medvar_engine.train.augment import augment
from medvar_engine.train.batches import batch_draw, check_size, spread
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.image_batches import ImageBatches
from medvar_engine.train.stage import Batch, Metrics
from medvar_engine.train.stages.codebook_learning import CodebookFollower, CodeUse
from medvar_engine.train.stages.held_out_metrics import Scores, codes_used
from medvar_engine.train.stages.image_grids import scale_previews, write_grid
from medvar_engine.train.stages.reconstruction_losses import ReconstructionLoss

SHOWN = 8  # held-out slices in a sample grid


class TokenizerStage:
    """Trains with reconstruction, gradient and codebook losses, and optionally a discriminator; restarts dead codes."""

    def __init__(self, config: TrainConfig, train: SliceDataset, held_out: SliceDataset, processes: Processes) -> None:
        self.config, self.held_out, self.processes, device = config, held_out, processes, processes.device
        torch.manual_seed(config.seed)
        self.model: Tokenizer = _start(config).to(device)
        self.network: nn.Module = self.model
        if config.compile:
            self.model.compile()
        check_size(train, self.model.config.image_size)
        self.batches = ImageBatches(train, batch_draw(train, config, processes))
        self.reconstruction = ReconstructionLoss(config, self.model.config.image_channels, device)
        self.critic = self.reconstruction.critic
        if config.codebook_learning == "gradient" and not config.decoder_only:
            self.model.quantizer.codebook.requires_grad_(True)
        self.codebook = CodebookFollower(self.model.quantizer).to(device)
        if config.tokenizer is not None:
            self.codebook.adopt(self.model.quantizer, config.batch_size)
        self.state = {"codebook": self.codebook}
        self._quantized: list[Quantized] = []  # micro-batches of this step, for the codebook

    def before_step(self, step: int) -> None:
        """Clear the last batch."""
        self.reconstruction.forget()
        self._quantized = []

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """Weighted sum of the losses of one micro-batch."""
        config, (images, hounsfield, _) = self.config, batch
        if config.augment:
            images = augment(images, hounsfield)
        output, quantized = self.network(images, self._depths(len(images), step))
        total, metrics = self.reconstruction.loss(output.float(), images, step, self.model.decoder.conv_out.weight)
        self._quantized.append(quantized)
        return total + config.codebook * quantized.loss, metrics | {Metric("codebook"): quantized.loss.detach()}

    def critic_losses(self) -> Iterator[Tensor]:
        """See `ReconstructionLoss`."""
        return self.reconstruction.critic_losses()

    def after_step(self, step: int) -> None:
        """Update the codebook from the batch, and restart codes that no scale has used for some time."""
        config, quantizer = self.config, self.model.quantizer
        if config.decoder_only:
            return
        fresh = not self.codebook.started
        use = functools.reduce(operator.add, (CodeUse.of(quantizer, part) for part in self._quantized))
        if config.codebook_learning == "average":
            self.codebook.follow(quantizer, use.everywhere(self.processes))
        else:
            self.codebook.keep_count(quantizer, use.everywhere(self.processes))
        if fresh:
            self.codebook.restart_all(quantizer, self._quantized[0])
        elif (step + 1) % config.restart_every == 0 and step < config.restart_until * config.steps:
            self.codebook.restart_dead(quantizer, self._quantized[0])
        else:
            return
        self.codebook.same_everywhere(quantizer, self.processes)

    def validate(self, model: nn.Module, folder: Path | None) -> dict[Metric, float]:
        """Similarity on held-out patients, overall and by region; number and entropy of the codes used per scale."""
        assert isinstance(model, Tokenizer)
        index = spread(len(self.held_out), self.config.validate_slices)
        scores = Scores()
        counts = torch.zeros(len(model.schedule), model.config.vocabulary, dtype=torch.int64)
        for part in np.array_split(index, -(-len(index) // self.config.batch_size)):
            images = torch.from_numpy(self.held_out.batch(part)).to(self.processes.device)
            tokens = model.encode(images)
            for count, token_map in zip(counts, tokens, strict=True):
                count += token_map.flatten().bincount(minlength=len(count)).cpu()
            output = model.decode(model.quantizer.decode(tokens))
            conditions = [self.held_out.conditions[int(i)] for i in part]
            self.reconstruction.judge(scores, output, images, conditions)
        if folder is not None:
            self._show(model, folder)
        return scores.means() | codes_used(counts)

    def held_out_loss(self, metrics: Mapping[Metric, float]) -> float:
        """The metric to minimise."""
        return -metrics[Metric("psnr", "held_out")]

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the tokenizer as one file."""
        assert isinstance(model, Tokenizer)
        save_tokenizer(path, model)

    def _show(self, model: Tokenizer, folder: Path) -> None:
        """Write a grid; each row shows a held-out slice and its previews from coarse to fine."""
        images = torch.from_numpy(self.held_out.batch(spread(len(self.held_out), SHOWN))).to(self.processes.device)
        rows = torch.cat([images[:, None], scale_previews(model, model.encode(images))], 1)
        write_grid(folder / "reconstructions.png", rows.flatten(0, 1), rows.shape[1])

    def _depths(self, count: int, step: int) -> Tensor:
        """The number of scales of each image that the decoder gets; K + 1 is the latent before quantisation."""
        scales, config = len(self.model.schedule), self.config
        shallow = torch.rand(count, device=self.processes.device) < config.random_depth
        depths = torch.where(shallow, torch.randint(1, scales + 1, (count,), device=self.processes.device), scales)
        if config.tokenizer is not None:  # a trained tokenizer needs no fading in of quantisation
            return depths
        fading = 1 - step / max(1, config.continuous * config.steps)
        return torch.where(torch.rand(count, device=self.processes.device) < fading, scales + 1, depths)


def _start(config: TrainConfig) -> Tokenizer:
    """A new tokenizer, or a trained one to continue."""
    if config.tokenizer is None:
        preset = tokenizer_preset(config.preset, config.image_size)
        assert isinstance(preset, TokenizerConfig)  # checked in `medvar_engine.train.run_training`
        return Tokenizer(preset)
    model = as_grey(load_tokenizer(config.tokenizer))
    assert isinstance(model, Tokenizer)
    if config.decoder_only:
        keep_tokens(model)
    return model


def keep_tokens(model: Tokenizer) -> None:
    """Freeze everything that determines the tokens of an image, so that only the decoder is trained."""
    for part in (model.encoder, model.quant_conv, model.quantizer, model.linear_in):
        if part is not None:
            part.requires_grad_(False)
