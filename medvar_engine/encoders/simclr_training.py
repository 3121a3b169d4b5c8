"""Trains the SimCLR encoder (Chen et al., ICML 2020) on the training split, in minutes on two cores, reproducibly.

Two views of a slice must be closer to each other than to all other slices of the batch. Views differ like a copy from
its original, so that copies get similar embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.image_source import PreparedImages
from medvar_engine.encoders.simclr import SimCLRConfig, SimCLREncoder, SimCLRNetwork, save_simclr, training_of
from medvar_engine.errors import MedvarError
from medvar_engine.train.augment import augment
from medvar_engine.train.batches import BalancedSampler
from medvar_engine.train.config_sections import DataSettings

_RECIPE = 1  # increased when the same settings would give another network
_WARMUP = 0.1  # fraction of the steps
_WINDOW_CENTRE = 0.3  # ± fraction of half the range of values
_WINDOW_WIDTH = 0.5  # ± exponent
_SHIFT = 0.08  # ± fraction of the side length, in addition to the augmentation of training
_NOISE = 0.1  # largest standard deviation

Progress = Callable[[int, int, float], None]
"""Called after each step with its number, the number of all steps, and the loss."""


@dataclass(frozen=True, slots=True)
class SimCLRTraining:
    """The settings of the training."""

    steps: int = 600
    batch_size: int = 96
    learning_rate: float = 2e-3
    temperature: float = 0.1
    balance: float = 0.5  # see `BalancedSampler`
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise MedvarError(
                f"SimCLR needs at least 1 step and 2 slices per batch, but has {self.steps} and {self.batch_size}."
            )


def trained_simclr(
    data: SliceDataset,
    path: Path,
    training: SimCLRTraining | None = None,
    config: SimCLRConfig | None = None,
    progress: Progress | None = None,
) -> SimCLREncoder:
    """The encoder in ``path`` if it was trained with these settings and slices; otherwise it is trained now."""
    training, config = training or SimCLRTraining(), config or SimCLRConfig()
    if data.split != "train":
        raise MedvarError(
            f"The encoder is trained on the split 'train', not {data.split!r}: held-out patients must be new to it."
        )
    network = {"size": config.size, "channels": list(config.channels), "dimension": config.dimension}
    about = {"recipe": _RECIPE, "data": PreparedImages(data).digest, "network": network, **asdict(training)}
    if training_of(path) != about:
        save_simclr(path, train_simclr(data, training, config, progress), about)
    return SimCLREncoder.load(path)


def train_simclr(
    data: SliceDataset, training: SimCLRTraining, config: SimCLRConfig, progress: Progress | None = None
) -> SimCLRNetwork:
    """Train on the CPU. The same seed, slices and number of threads give the same weights, bit for bit."""
    if len(data) < 2:
        raise MedvarError(f"SimCLR needs several slices to compare, but {data.folder} has {len(data)} training slices.")
    sampler = BalancedSampler(data, DataSettings(balance=training.balance, most_repeats=float(len(data))))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = SimCLRNetwork(config).train()
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
        for step in range(training.steps):
            rng = np.random.default_rng((training.seed, step))
            images = torch.from_numpy(_draw(data, sampler, training.batch_size, config, rng))
            torch.manual_seed(int(rng.integers(2**62)))
            views = torch.cat([_view(images), _view(images)])
            loss = contrastive_loss(network(views), training.temperature)
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * _schedule(step, training.steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not math.isfinite(loss.item()):
                raise MedvarError("The training of the encoder diverged. Choose a lower learning rate.")
            if progress is not None:
                progress(step + 1, training.steps, loss.item())
    return network.eval()


def contrastive_loss(embeddings: Tensor, temperature: float) -> Tensor:
    """NT-Xent, equation 1 of the paper: rows i and i + B of ``(2B, D)``, each of length 1, are views of one slice."""
    count = len(embeddings) // 2
    similarity = (embeddings @ embeddings.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * count).roll(count)
    return F.cross_entropy(similarity, partner)


def _draw(
    data: SliceDataset, sampler: BalancedSampler, count: int, config: SimCLRConfig, rng: np.random.Generator
) -> np.ndarray:
    """Distinct slices ``(B, 1, size, size)``, because a slice must not be contrasted with itself."""
    chosen = np.unique(sampler.draw(count, rng))
    if len(chosen) == 1:
        chosen = rng.choice(len(data), 2, replace=False)
    return config.preprocessing(data.batch(chosen)[:, 0])


@torch.no_grad()
def _view(images: Tensor) -> Tensor:
    """Random views of slices ``(B, 1, H, W)``: warped, mirrored, with another window, blur and noise."""

    def uniform(limit: float) -> Tensor:
        return (torch.rand(len(images), 1, 1, 1) * 2 - 1) * limit

    def sometimes(changed: Tensor, otherwise: Tensor) -> Tensor:
        return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, changed, otherwise)

    views = _shifted(augment(images))
    views = sometimes(views.flip(3), views)
    views = sometimes(views.flip(2), views)
    views = ((views - uniform(_WINDOW_CENTRE)) * uniform(_WINDOW_WIDTH).exp()).clamp(-1, 1)
    blurred = F.avg_pool2d(F.avg_pool2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), 2, 1), 2, 1)
    views = sometimes(views.lerp(blurred, torch.rand(len(images), 1, 1, 1)), views)
    return (views + torch.randn_like(views) * uniform(_NOISE).abs()).clamp(-1, 1)


def _shifted(images: Tensor) -> Tensor:
    """Shift each image by a random number of whole pixels; the margin is filled with air."""
    count, _, height, width = images.shape
    reach = max(1, round(_SHIFT * min(height, width)))
    padded = F.pad(images, (reach,) * 4, value=-1.0)[:, 0]
    rows = torch.randint(2 * reach + 1, (count, 1, 1)) + torch.arange(height)[None, :, None]
    columns = torch.randint(2 * reach + 1, (count, 1, 1)) + torch.arange(width)[None, None, :]
    return padded[torch.arange(count)[:, None, None], rows, columns][:, None]


def _schedule(step: int, steps: int) -> float:
    """The learning rate factor: linear warm-up, then half a cosine to zero."""
    warmup = max(1, round(_WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
