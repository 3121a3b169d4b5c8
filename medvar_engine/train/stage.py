"""The `Stage` protocol: what differs between the training of tokenizer, transformer and light decoder."""

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
    """The micro-batches of a run. They are read in worker processes, if there are any."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray[Any, Any], ...]:
        """The arrays of micro-batch ``(step, part)``, a deterministic function of both."""


class Stage(Protocol):
    """One kind of model, its data and its losses."""

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""

    network: nn.Module
    """The module that `loss` calls: the model, or a wrapper that synchronises several processes."""

    @property
    def critic(self) -> nn.Module | None:
        """A discriminator that is trained together with the model, with its own optimiser; None without one."""

    @property
    def state(self) -> Mapping[str, nn.Module]:
        """Further modules for a checkpoint, by name."""

    @property
    def batches(self) -> Batches:
        """The micro-batches of the run."""

    def before_step(self, step: int) -> None:
        """Called before the micro-batches of a step."""

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """The loss of one micro-batch, and metrics to log."""

    def critic_losses(self) -> Iterator[Tensor]:
        """The discriminator's loss on every micro-batch of this step; nothing while it is switched off."""

    def after_step(self, step: int) -> None:
        """Called after the weights were updated."""

    def validate(self, model: nn.Module, folder: Path | None) -> dict[Metric, float]:
        """Metrics on held-out patients; sample grids are written to ``folder`` as PNG."""

    def held_out_loss(self, metrics: Mapping[Metric, float]) -> float:
        """The metric of `validate` to minimise; the best checkpoint has the lowest value."""

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the finished model as one file."""
