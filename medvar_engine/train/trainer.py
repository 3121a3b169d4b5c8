"""`Trainer`: the weights, their moving average and the optimisers of a run.

It works in one process, or in several with copies (DDP) or shares (FSDP2) of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import Metric
from medvar_engine.models.weight_files import read_tensors, write_tensors
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.device import autocast
from medvar_engine.train.distributed import data_parallel, fully_sharded
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.optimise import (
    copied,
    critic_optimizer,
    learning_rate,
    move_average,
    optimizer_tensors,
    optimizers,
    restore_optimizer,
    set_rate,
)
from medvar_engine.train.stage import Batch, Metrics, Stage


class Trainer:
    """Performs training steps. Raises `MedvarError` for a checkpoint that does not fit."""

    def __init__(self, config: TrainConfig, stage: Stage, processes: Processes) -> None:
        self.config, self.stage, self.processes = config, stage, processes
        self.model, self.average = stage.model, copied(stage.model)
        if config.shard:
            for model in (self.model, self.average):
                fully_sharded.shard(model, processes)
        elif processes.size > 1:
            stage.network = data_parallel.replicate(self.model)
        self.optimizers = optimizers(self.model, config)
        self.critic_optimizer = critic_optimizer(stage.critic, config) if stage.critic else None

    def gradients(self, step: int, parts: Sequence[tuple[int, Batch]]) -> tuple[Tensor, Tensor, Metrics]:
        """Compute gradients; returns mean loss and metrics over ``parts``, and the gradient norm before clipping.

        ``parts`` are micro-batches with their numbers in the whole batch, which seed their random numbers.
        """
        for optimizer in self.optimizers.values():
            set_rate(optimizer, learning_rate(self.config, step))
            optimizer.zero_grad(set_to_none=True)
        self.model.train()
        self.stage.before_step(step)
        seen: list[Metrics] = []
        for i, (number, batch) in enumerate(parts):
            torch.manual_seed((number << 45) + self.config.seed * 1_000_003 + step)
            with self._synchronised(last=i + 1 == len(parts)):
                with autocast(self.processes.device, self.config.precision):
                    loss, metrics = self.stage.loss(batch, step)
                (loss / len(parts)).backward()
            seen.append({Metric("loss"): loss.detach(), **metrics})
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        means = {one: torch.stack([torch.as_tensor(part[one]) for part in seen]).mean() for one in seen[0]}
        return means[Metric("loss")], norm.full_tensor() if isinstance(norm, DTensor) else norm, {**means}

    def update(self, step: int) -> Metrics:
        """Update the weights; returns the metrics of the discriminator."""
        for optimizer in self.optimizers.values():
            optimizer.step()
        metrics = self._update_critic(step)
        move_average(self.average, self.model, self.config.ema, step)
        torch.manual_seed(
            self.config.seed * 1_000_003 + step
        )  # the same in every process, whatever the number of micro-batches
        self.stage.after_step(step)
        return metrics

    def _update_critic(self, step: int) -> Metrics:
        critic, optimizer = self.stage.critic, self.critic_optimizer
        if critic is None or optimizer is None:
            return {}
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for loss in self.stage.critic_losses():
            (loss / self.config.accumulate).backward()
            losses.append(loss.detach())
        if not losses:
            return {}
        self.processes.average_gradients(critic)
        norm = nn.utils.clip_grad_norm_(critic.parameters(), self.config.clip)
        if not torch.isfinite(norm):
            return {}
        optimizer.step()
        return {Metric("critic"): torch.stack(losses).mean()}

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Synchronise gradients between processes only with the last micro-batch."""
        if self.config.shard:
            fully_sharded.synchronise(self.model, last)
            return nullcontext()
        return data_parallel.synchronise(self.stage.network, last)

    def write(self, folder: Path) -> None:
        """Write the state into the folder of a checkpoint. Every process calls this and writes its share."""
        if self.config.shard:
            fully_sharded.write(folder, self.model, self.average, self.optimizers["optimizer"])
        if not self.processes.is_main:
            return
        groups: dict[str, Mapping[str, Tensor]] = {name: module.state_dict() for name, module in self._modules()}
        groups |= {name: optimizer_tensors(optimizer) for name, optimizer in self._optimizers()}
        for name, tensors in groups.items():
            write_tensors(folder / f"{name}.safetensors", tensors)

    def restore(self, folder: Path) -> None:
        """The inverse of `write`."""
        try:
            if self.config.shard:
                fully_sharded.restore(folder, self.model, self.average, self.optimizers["optimizer"])
            for name, module in self._modules():
                module.load_state_dict(dict(read_tensors(folder / f"{name}.safetensors")[0]))
            for name, optimizer in self._optimizers():
                restore_optimizer(optimizer, read_tensors(folder / f"{name}.safetensors")[0])
        except (RuntimeError, KeyError, ValueError) as error:
            raise MedvarError(
                f"The checkpoint {folder} does not fit this configuration: {error}. "
                "Resume with the configuration that the run was started with, or choose another out folder."
            ) from error

    def averaged(self) -> nn.Module | None:
        """The averaged model in the main process; None in the others. Every process calls this."""
        average = fully_sharded.gathered(self.average) if self.config.shard else self.average
        return average if self.processes.is_main else None

    def _modules(self) -> list[tuple[str, nn.Module]]:
        whole = [] if self.config.shard else [("model", self.model), ("average", self.average)]
        critic = [("critic", self.stage.critic)] if self.stage.critic else []
        return [*whole, *critic, *self.stage.state.items()]

    def _optimizers(self) -> list[tuple[str, torch.optim.Optimizer]]:
        whole = [] if self.config.shard else [*self.optimizers.items()]
        critic = [("critic_optimizer", self.critic_optimizer)] if self.critic_optimizer else []
        return [*whole, *critic]
