"""Stage ``preview``: trains a light decoder to reproduce the full decoder's previews of the first scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import Metric
from medvar_engine.models.grey import as_grey
from medvar_engine.models.preview_decoder import PreviewDecoder, preview_config
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.weight_files import load_tokenizer, save_preview, tokenizer_digest
from medvar_engine.train.augment import augment
from medvar_engine.train.batches import batch_draw, check_size, spread
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.image_batches import ImageBatches
from medvar_engine.train.stage import Batch, Metrics
from medvar_engine.train.stages.image_grids import write_grid
from medvar_engine.train.stages.image_similarity import psnr
from medvar_engine.train.stages.losses import gradient_loss
from medvar_engine.train.token_pyramids import codebook_of

SHOWN = 6  # held-out slices in a sample grid


class PreviewStage:
    """Distillation with the full decoder's image of a partial latent as target."""

    critic = None

    def __init__(self, config: TrainConfig, train: SliceDataset, held_out: SliceDataset, processes: Processes) -> None:
        assert config.tokenizer is not None  # checked by TrainConfig
        self.config, self.held_out, self.processes = config, held_out, processes
        self.state: dict[str, nn.Module] = {}
        tokenizer = as_grey(load_tokenizer(config.tokenizer))
        if not isinstance(tokenizer, Tokenizer):
            raise MedvarError("A tokenizer of resolutions needs no light decoder, because its scales are images.")
        self.tokenizer = tokenizer.to(processes.device).requires_grad_(False)
        check_size(train, self.tokenizer.config.image_size)
        torch.manual_seed(config.seed)
        self.model: PreviewDecoder = PreviewDecoder(preview_config(self.tokenizer.config)).to(processes.device)
        self.network: nn.Module = self.model
        self.batches = ImageBatches(train, batch_draw(train, config, processes))

    def before_step(self, step: int) -> None:
        """Nothing to do."""

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """L1 and gradient losses against the full decoder; each image has a random number of scales."""
        images, hounsfield, _ = batch
        if self.config.augment:
            images = augment(images, hounsfield)
        with torch.no_grad():
            latents = self._latents(images)  # (K, B, C, side, side)
            depths = torch.randint(len(latents), (len(images),), device=images.device)
            latent = latents[depths, torch.arange(len(images), device=images.device)]
            target = self.tokenizer.decode(latent)
        output = self.network(latent).float()
        l1 = F.l1_loss(output, target)
        metrics: Metrics = {
            Metric("l1"): l1.detach(),
            Metric("psnr"): psnr(output.detach().clamp(-1, 1), target).mean(),
        }
        return self.config.l1 * l1 + self.config.gradient * gradient_loss(output, target), metrics

    def critic_losses(self) -> Iterator[Tensor]:
        """Nothing, because there is no discriminator."""
        return iter(())

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def validate(self, model: nn.Module, folder: Path | None) -> dict[Metric, float]:
        """PSNR of previews against those of the full decoder on held-out patients, in dB, overall and per scale.

        ``psnr_image`` is the PSNR of previews of all scales against the images.
        """
        assert isinstance(model, PreviewDecoder)
        index = spread(len(self.held_out), self.config.validate_slices)
        found: list[Tensor] = []
        to_images: list[Tensor] = []
        for part in np.array_split(index, -(-len(index) // self.config.batch_size)):
            images = torch.from_numpy(self.held_out.batch(part)).to(self.processes.device)
            latents = self._latents(images)
            found.append(torch.stack([psnr(model.decode(one), self.tokenizer.decode(one)) for one in latents]))
            to_images.append(psnr(model.decode(latents[-1]), images))
        by_scale = torch.cat(found, dim=1).mean(1)
        if folder is not None:
            self._show(model, folder)
        metrics = {
            Metric("psnr", "held_out"): by_scale.mean().item(),
            Metric("psnr_image", "held_out"): torch.cat(to_images).mean().item(),
        }
        return metrics | {Metric("psnr", "held_out", k): value for k, value in enumerate(by_scale.tolist())}

    def held_out_loss(self, metrics: Mapping[Metric, float]) -> float:
        """The metric to minimise."""
        return -metrics[Metric("psnr", "held_out")]

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the light decoder as one file."""
        assert isinstance(model, PreviewDecoder)
        codebook = codebook_of(self.tokenizer)
        save_preview(path, model, codebook, tokenizer_digest(self.tokenizer))

    def _latents(self, images: Tensor) -> Tensor:
        """The latent after each scale, ``(K, B, C, side, side)``."""
        quantizer = self.tokenizer.quantizer
        lifted = [quantizer.lift(tokens, k) for k, tokens in enumerate(self.tokenizer.encode(images))]
        return torch.stack(lifted).cumsum(0)

    def _show(self, model: PreviewDecoder, folder: Path) -> None:
        """Write a grid with two rows per slice: previews of all scales by the light decoder and by the full one."""
        latents = self._latents(
            torch.from_numpy(self.held_out.batch(spread(len(self.held_out), SHOWN))).to(self.processes.device)
        )
        rows = torch.stack(
            [torch.stack([decode(one) for one in latents]) for decode in (model.decode, self.tokenizer.decode)]
        )
        write_grid(folder / "previews.png", rows.permute(2, 0, 1, 3, 4, 5).flatten(0, 2), len(latents))
