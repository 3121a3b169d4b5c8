"""What differs between what is trained: the tokenizer, the transformer, the preview decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from medvar_engine.metric_log import Metric

Batch = tuple[Tensor, ...]
Metrics = dict[Metric, Tensor | float]


class Batches(Protocol):
    """What each part of each step's batch holds; read in worker processes when there are any."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray[Any, Any], ...]:
        """The arrays of ``(step, part)``: always the same ones."""


class Stage(Protocol):
    """One kind of model, its data and its losses."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    network: nn.Module
    """What `loss` calls: the model, or a wrapper of it that keeps several processes together."""

    @property
    def critic(self) -> nn.Module | None:
        """A discriminator with an optimiser of its own, trained beside the model."""

    @property
    def state(self) -> Mapping[str, nn.Module]:
        """What else a checkpoint must hold, by name."""

    @property
    def batches(self) -> Batches:
        """What it learns from."""

    def before_step(self, step: int) -> None:
        """Called before the parts of a batch."""

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """The loss of one part of a batch, and metrics to log."""

    def critic_losses(self) -> Iterator[Tensor]:
        """The critic's loss on every part seen in this step; none while it rests."""

    def after_step(self, step: int) -> None:
        """Called when the weights have changed."""

    def validate(self, model: nn.Module, folder: Path | None) -> dict[Metric, float]:
        """Metrics on held-out patients; sample grids go to ``folder`` as PNG."""

    def held_out_loss(self, metrics: Mapping[Metric, float]) -> float:
        """The one metric of `validate` that is to fall; the best checkpoint has the lowest."""

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the finished model as one file."""
