"""Stage ``tokenizer`` of a pyramid of resolutions: patches are fitted once, then the refiner learns from gradients.

The refiner sees canvases of true tokens or, given a transformer, also canvases whose fine scales that transformer
draws: it learns to mend what drawing tokens independently of each other breaks (compare arXiv 2509.12474).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.models.presets import tokenizer_preset
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer, with_grain
from medvar_engine.models.weight_files import load_tokenizer, load_transformer, save_tokenizer
from medvar_engine.train.augment import augment
from medvar_engine.train.batches import BalancedSampler, check_size, draw_of, in_hounsfield, spread
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import World
from medvar_engine.train.image_batches import ImageBatches
from medvar_engine.train.stage import Batch, Figures
from medvar_engine.train.stages.fit_patches import fit_patches
from medvar_engine.train.stages.held_out_metrics import Scores, codes_used
from medvar_engine.train.stages.image_grids import ladder, write_grid
from medvar_engine.train.stages.losses import psnr
from medvar_engine.train.stages.reconstruction_losses import Reconstruction
from medvar_engine.train.stages.teacher_forced_draws import TeacherForcedDraws

SHOWN = 8  # held-out slices in a sample grid
FITTED_ON = 6000  # slices, most of them augmented, that patches are fitted to
FITTED = "patches.safetensors"  # the fitted tokenizer before its refiner learns, in the run's folder


class RefinerStage:
    """Reconstruction losses, and optionally a critic, on canvases of fixed patches."""

    def __init__(self, config: TrainConfig, train: SliceDataset, held_out: SliceDataset, world: World) -> None:
        self.config, self.held_out, self.device = config, held_out, world.device
        torch.manual_seed(config.seed)
        self.batches = ImageBatches(train, draw_of(train.conditions, config, world))
        with world.leader_first():
            model = _start(config, train)
            self.model = (with_grain(model) if config.texture else model).to(self.device)
        check_size(train, self.model.config.image_size)
        self.network: nn.Module = self.model
        if config.compile:
            self.model.refiner.compile()
        self.reconstruction = Reconstruction(config, self.model.config.image_channels, self.device)
        self.critic = self.reconstruction.critic
        self.state: Mapping[str, nn.Module] = {}
        self.draws = None
        if config.draw_with is not None:
            network, labels = load_transformer(config.draw_with)
            self.draws = TeacherForcedDraws(
                self.model.quantizer, network.to(self.device), labels, train, config.drawn_scales
            )

    def before_step(self, step: int) -> None:
        """Forget the last batch."""
        self.reconstruction.forget()

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Figures]:
        """Weighted sum of the losses of one part of a batch."""
        images, hounsfield, kinds = batch
        if self.config.augment:
            images = augment(images, hounsfield)
        certain: Callable[[Tensor], Tensor] | None = None
        with torch.no_grad():
            tokens = self.model.encode(images)
            if self.draws is not None:
                tokens, drawn = self.draws(tokens, kinds)
                certain = partial(self.draws.certain, drawn=drawn)
            with torch.autocast(self.device.type, enabled=False):
                canvas = self.model.quantizer.decode(tokens)
        output = self.network(canvas).float()
        return self.reconstruction.loss(output, images, step, self.model.refiner.conv_out.weight, certain)

    def critic_losses(self) -> Iterator[Tensor]:
        """See `Reconstruction`."""
        return self.reconstruction.critic_losses()

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def validate(self, model: nn.Module, folder: Path | None) -> dict[str, float]:
        """Likeness on held-out patients, overall, by region and after every scale; how evenly codes are used."""
        assert isinstance(model, ResolutionTokenizer)
        index = spread(len(self.held_out), self.config.validate_slices)
        scores, by_scale = Scores(), torch.zeros(len(model.schedule))
        counts = torch.zeros(len(model.schedule), model.config.vocabulary, dtype=torch.int64)
        for part in np.array_split(index, -(-len(index) // self.config.batch_size)):
            images = torch.from_numpy(self.held_out.batch(part)).to(self.device)
            tokens = model.encode(images)
            for k, token_map in enumerate(tokens):
                counts[k] += token_map.flatten().bincount(minlength=model.config.vocabulary).cpu()
                shown = model.preview(model.quantizer.decode(tokens[: k + 1]))
                by_scale[k] += psnr(shown, images).sum().cpu()
            output = model.decode(model.quantizer.decode(tokens))
            conditions = [self.held_out.conditions[int(i)] for i in part]
            self.reconstruction.judge(scores, output, images, conditions)
        if folder is not None:
            self._show(model, folder)
        previews = {f"held_out_psnr_scale_{k}": float(total) / len(index) for k, total in enumerate(by_scale)}
        return scores.means() | previews | codes_used(counts)

    def held_out_loss(self, figures: Mapping[str, float]) -> float:
        """What is to fall."""
        return -figures["held_out_psnr"]

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the tokenizer as one file."""
        assert isinstance(model, ResolutionTokenizer)
        save_tokenizer(path, model)

    def _show(self, model: ResolutionTokenizer, folder: Path) -> None:
        """Each row: a held-out slice, its previews from the coarsest scale to the finest, and its reconstruction."""
        images = torch.from_numpy(self.held_out.batch(spread(len(self.held_out), SHOWN))).to(self.device)
        rows = torch.cat([images[:, None], ladder(model, model.encode(images))], 1)
        write_grid(folder / "reconstructions.png", rows.flatten(0, 1), rows.shape[1])


def _start(config: TrainConfig, train: SliceDataset) -> ResolutionTokenizer:
    """A trained tokenizer to go on with, or a new one whose patches are fitted now unless this run has done so."""
    source = config.tokenizer or config.out / FITTED
    if config.tokenizer is not None or source.is_file():
        model = load_tokenizer(source)
        if not isinstance(model, ResolutionTokenizer):
            raise MedvarError(f"{source} is no tokenizer of resolutions. Choose another out folder.")
        return model.requires_grad_(True)
    preset = tokenizer_preset(config.preset, config.image_size)
    assert isinstance(preset, ResolutionConfig)  # see `medvar_engine.train.run_training`
    check_size(train, preset.image_size)
    model = ResolutionTokenizer(preset)
    fit_patches(model.quantizer, model.latent(_images_to_fit(config, train)))
    save_tokenizer(source, model)
    return model


def _images_to_fit(config: TrainConfig, train: SliceDataset) -> Tensor:
    """Slices drawn as for batches ``(N, 1, H, W)``; with ``augment`` two of three are changed a little."""
    sampler = BalancedSampler(train.conditions, config.balance, config.most_repeats)
    drawn = sampler.draw(FITTED_ON, np.random.default_rng(config.seed))
    parts = []
    for i, index in enumerate(np.array_split(drawn, FITTED_ON // 100)):
        images, hounsfield = torch.from_numpy(train.batch(index)), torch.from_numpy(in_hounsfield(train, index))
        parts.append(augment(images, hounsfield) if config.augment and i % 3 else images)
    return torch.cat(parts)
