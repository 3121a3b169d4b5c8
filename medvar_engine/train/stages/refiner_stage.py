"""Stage ``tokenizer`` for a pyramid of resolutions: patches are fitted once, then the refiner is trained.

The refiner is trained on canvases of true tokens and, if a transformer is given, also on canvases whose fine scales the
transformer has drawn. It thus learns to correct the errors of drawing tokens independently (compare arXiv 2509.12474).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import Metric
from medvar_engine.models.presets import tokenizer_preset, with_masks
from medvar_engine.models.pretrained import check_tokenizer, load_guide
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer, with_grain
from medvar_engine.models.weight_files import load_tokenizer, load_transformer, save_tokenizer
from medvar_engine.request import Sampling
from medvar_engine.train.augment import augment
from medvar_engine.train.batches import BalancedSampler, batch_draw, check_size, in_hounsfield, spread
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.image_batches import ImageBatches, check_structures, inputs_of
from medvar_engine.train.stage import Batch, Metrics
from medvar_engine.train.stages.drawn_tokens import DrawnTokens
from medvar_engine.train.stages.fit_patches import fit_patches
from medvar_engine.train.stages.held_out_metrics import Scores, codes_used
from medvar_engine.train.stages.image_grids import scale_previews, write_grid
from medvar_engine.train.stages.image_similarity import psnr
from medvar_engine.train.stages.mask_losses import dice_of, mask_loss
from medvar_engine.train.stages.reconstruction_losses import CertainParts, ReconstructionLoss

SHOWN = 8  # held-out slices in a sample grid
FITTED_ON = 6000  # number of slices, most of them augmented, that patches are fitted to
FITTED = "patches.safetensors"  # file in the run's folder: the fitted tokenizer with an untrained refiner


class RefinerStage:
    """Trains the refiner with reconstruction losses, and optionally a discriminator, on canvases of fixed patches."""

    def __init__(self, config: TrainConfig, train: SliceDataset, held_out: SliceDataset, processes: Processes) -> None:
        self.config, self.held_out, self.device = config, held_out, processes.device
        torch.manual_seed(config.seed)
        with processes.main_first():
            model = _start(config, train)
            self.model = (with_grain(model) if config.texture else model).to(self.device)
        check_size(train, self.model.config.image_size)
        self.masks = bool(self.model.config.structures)
        check_structures(train, self.model.config.structures)
        self.batches = ImageBatches(train, batch_draw(train, config, processes), self.masks)
        self.network: nn.Module = self.model
        if config.compile:
            self.model.refiner.compile()
        self.reconstruction = ReconstructionLoss(config, self.model.config.image_channels, self.device)
        self.critic = self.reconstruction.critic
        self.state: Mapping[str, nn.Module] = {}
        if config.draw_guide is not None and (config.draw_with is None or config.draw_guidance <= 0):
            raise MedvarError("draw_guide needs draw_with and a draw_guidance above 0. Set both, or leave it out.")
        self.draws = None if config.draw_with is None else _draws(config, config.draw_with, self.model, train)

    def before_step(self, step: int) -> None:
        """Clear the images of the last step."""
        self.reconstruction.forget()

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """Weighted sum of the losses of one micro-batch."""
        images, hounsfield, condition_codes = batch
        if self.config.augment:
            images = augment(images, hounsfield, masks=self.masks)
        drawn, certain = torch.zeros(len(images), dtype=torch.bool, device=self.device), None
        with torch.no_grad():
            tokens = self.model.encode(images)
            if self.draws is not None:
                tokens, drawn = self.draws(tokens, condition_codes)
                certain = CertainParts(~drawn, partial(self.draws.certain, drawn=drawn))
            with torch.autocast(self.device.type, enabled=False):
                canvas = self.model.quantizer.decode(tokens)
        output = self.network(canvas).float()
        last = self.model.refiner.conv_out.weight
        if not self.masks:
            return self.reconstruction.loss(output, images, step, last, certain)
        total, metrics = self.reconstruction.loss(output[:, :1], images[:, :1], step, last, certain)
        of_masks = mask_loss(output[~drawn, 1:], images[~drawn, 1:])  # a drawn mask differs from the true one
        return total + self.config.mask_loss * of_masks, metrics | {Metric("mask_loss"): of_masks.detach()}

    def critic_losses(self) -> Iterator[Tensor]:
        """See `ReconstructionLoss`."""
        return self.reconstruction.critic_losses()

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def validate(self, model: nn.Module, folder: Path | None) -> dict[Metric, float]:
        """Similarity on held-out patients, overall, by region and after every scale; and the use of codes."""
        assert isinstance(model, ResolutionTokenizer)
        index = spread(len(self.held_out), self.config.validate_slices)
        scores, by_scale = Scores(), torch.zeros(len(model.schedule))
        counts = torch.zeros(len(model.schedule), model.config.vocabulary, dtype=torch.int64)
        dice: list[Tensor] = []
        for part in np.array_split(index, -(-len(index) // self.config.batch_size)):
            images = torch.from_numpy(inputs_of(self.held_out, part, self.masks)).to(self.device)
            tokens = model.encode(images)
            for k, token_map in enumerate(tokens):
                counts[k] += token_map.flatten().bincount(minlength=model.config.vocabulary).cpu()
                shown = model.preview(model.quantizer.decode(tokens[: k + 1]))
                by_scale[k] += psnr(shown[:, :1], images[:, :1]).sum().cpu()
            output = model.decode(model.quantizer.decode(tokens))
            conditions = [self.held_out.conditions[int(i)] for i in part]
            self.reconstruction.judge(scores, output[:, :1], images[:, :1], conditions)
            if self.masks:
                dice.append(dice_of(output[:, 1:], images[:, 1:], len(model.config.structures)).cpu())
        if folder is not None:
            self._show(model, folder)
        previews = {Metric("psnr", "held_out", k): float(total) / len(index) for k, total in enumerate(by_scale)}
        of_masks = torch.cat(dice) if dice else torch.zeros(0)
        masks = {Metric("mask_dice", "held_out"): float(of_masks.mean())} if len(of_masks) else {}
        return scores.means() | previews | masks | codes_used(counts)

    def held_out_loss(self, metrics: Mapping[Metric, float]) -> float:
        """The metric to minimise; a Dice coefficient of 1 counts as 20 dB."""
        return -metrics[Metric("psnr", "held_out")] - 20 * metrics.get(Metric("mask_dice", "held_out"), 0.0)

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the tokenizer as one file."""
        assert isinstance(model, ResolutionTokenizer)
        save_tokenizer(path, model)

    def _show(self, model: ResolutionTokenizer, folder: Path) -> None:
        """Write a grid; each row shows a held-out slice, its previews from coarse to fine, and its reconstruction."""
        shown = inputs_of(self.held_out, spread(len(self.held_out), SHOWN), self.masks)
        images = torch.from_numpy(shown).to(self.device)
        rows = torch.cat([images[:, None], scale_previews(model, model.encode(images))], 1)
        write_grid(folder / "reconstructions.png", rows.flatten(0, 1), rows.shape[1])


def _start(config: TrainConfig, train: SliceDataset) -> ResolutionTokenizer:
    """A trained tokenizer to continue, or a new one; its patches are fitted now unless this run has fitted them."""
    source = config.tokenizer or config.out / FITTED
    if config.tokenizer is not None or source.is_file():
        model = load_tokenizer(source)
        if not isinstance(model, ResolutionTokenizer):
            raise MedvarError(f"{source} is not a tokenizer of resolutions. Choose another out folder.")
        return model.requires_grad_(True)
    preset = tokenizer_preset(config.preset, config.image_size)
    assert isinstance(preset, ResolutionConfig)  # checked in `medvar_engine.train.run_training`
    check_size(train, preset.image_size)
    if config.masks:
        if not train.structures:
            raise MedvarError(f"{train.folder} has no masks to train on. Prepare slices with `medvar prepare --masks`.")
        preset = with_masks(preset, train.structures)
    model = ResolutionTokenizer(preset)
    fit_patches(model.quantizer, _canvases_to_fit(config, train, model))
    save_tokenizer(source, model)
    return model


def _draws(config: TrainConfig, transformer: Path, model: ResolutionTokenizer, train: SliceDataset) -> DrawnTokens:
    """Draws by a trained transformer, guided by the settings."""
    device, name = model.quantizer.patches(0).device, str(config.tokenizer or config.out / FITTED)
    network, labels = load_transformer(transformer)
    check_tokenizer(network, model.config, (str(transformer), name))
    guide = None if config.draw_guide is None else load_guide(config.draw_guide, model.config, name, labels).to(device)
    sampling = Sampling(config.draw_guidance, 1.0, config.draw_top_k, config.draw_top_p, coarse_guidance=1.0)
    return DrawnTokens(model.quantizer, network.to(device), labels, train, config.drawn_scales, sampling, guide)


def _canvases_to_fit(config: TrainConfig, train: SliceDataset, model: ResolutionTokenizer) -> Tensor:
    """Slices drawn as for batches, as canvases; with ``augment``, two of three are augmented.

    For pairs fewer slices are used, because their canvases are larger.
    """
    count, masks = max(FITTED_ON // model.config.canvas_channels, 100), bool(model.config.structures)
    sampler = BalancedSampler(train, config)
    drawn = sampler.draw(count, np.random.default_rng(config.seed))
    parts = []
    for i, index in enumerate(np.array_split(drawn, count // 100)):
        images = torch.from_numpy(inputs_of(train, index, masks))
        hounsfield = torch.from_numpy(in_hounsfield(train, index))
        parts.append(model.latent(augment(images, hounsfield, masks=masks) if config.augment and i % 3 else images))
    return torch.cat(parts)
