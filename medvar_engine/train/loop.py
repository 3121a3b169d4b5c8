"""The training loop, one for both stages.

Every random number of step ``s`` comes from generators seeded with ``(seed, s)``, so a resumed run goes on
exactly as if it had never stopped.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from medvar_engine.errors import MedvarError
from medvar_engine.train.checkpoint import (
    Checkpoint,
    newest_checkpoint,
    optimizer_tensors,
    remove_unfinished,
    restore_optimizer,
    save_checkpoint,
)
from medvar_engine.train.config import TrainConfig, check_resumable, run_to_dict
from medvar_engine.train.log import CsvLog
from medvar_engine.train.stopping import StoppedEarly, stop_requests

MAX_BAD_STEPS = 20  # non-finite losses in a row before a run gives up


class Stage(Protocol):
    """What differs between training the tokenizer and the transformer."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    @property
    def critic(self) -> nn.Module | None:
        """A discriminator with an optimiser of its own, trained beside the model."""

    @property
    def state(self) -> Mapping[str, nn.Module]:
        """What else a checkpoint must hold, by name."""

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch, and figures to log."""

    def critic_loss(self) -> Tensor | None:
        """The critic's loss on the batch just seen; None while it rests."""

    def after_step(self, step: int) -> None:
        """Called when the weights have changed."""

    def validate(self, model: nn.Module, folder: Path) -> dict[str, float]:
        """Figures on patients not trained on; sample grids go to ``folder`` as PNG."""

    def held_out_loss(self, figures: Mapping[str, float]) -> float:
        """The one figure of `validate` that is to fall; the best checkpoint has the lowest."""

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the finished model as one file."""


def train(config: TrainConfig, stage: Stage, device: torch.device, *, resume: bool, console: Console) -> Path:
    """Run ``config.steps`` steps and give the path of the finished model, ``out/<stage>.safetensors``.

    Asked to stop by a signal, it ends the step, saves a checkpoint and raises `StoppedEarly`.
    """
    model = stage.model
    average = _copy(model)
    optimizer = _adamw(model, config)
    critic_optimizer = _adamw(stage.critic, config) if stage.critic else None
    checkpoints = config.out / "checkpoints"
    remove_unfinished(checkpoints)
    start = 0
    if resume and (found := newest_checkpoint(checkpoints, console.print)):
        check_resumable(config, found.values)
        _restore(found, stage, average, optimizer, critic_optimizer)
        start = found.step
        console.print(f"Resumed at step {start} of {config.steps}.")
    elif resume:
        console.print(f"There is no sound checkpoint in {checkpoints} yet, so the run starts at step 0.")
    log = CsvLog(config.out / "log.csv", start)
    precision = _precision(config, device)
    about = run_to_dict(config)
    bad_steps = 0

    def snapshot(step: int, held_out_loss: float | None) -> None:
        tensors = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer_tensors(optimizer),
        }
        if stage.critic and critic_optimizer:
            tensors |= {"critic": stage.critic.state_dict(), "critic_optimizer": optimizer_tensors(critic_optimizer)}
        tensors |= {name: module.state_dict() for name, module in stage.state.items()}
        save_checkpoint(checkpoints, Checkpoint(step, tensors, about, held_out_loss), config.keep)

    with stop_requests() as asked_to_stop, _progress(console) as progress:
        task = progress.add_task(config.stage, total=config.steps, completed=start, note="")
        clock, seen = time.monotonic(), start
        for step in range(start, config.steps):
            torch.manual_seed(config.seed * 1_000_003 + step)
            rng = np.random.default_rng((config.seed, step))
            for opt in (optimizer, critic_optimizer):
                if opt is not None:
                    _set_rate(opt, learning_rate(config, step))
            model.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                loss, figures = stage.loss(step, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            if not torch.isfinite(loss) or not torch.isfinite(norm):
                bad_steps += 1
                if bad_steps >= MAX_BAD_STEPS:
                    raise MedvarError(
                        f"The loss was not finite for {bad_steps} steps in a row, up to step {step}. "
                        "Lower learning_rate or set precision=float32, and resume from the last checkpoint."
                    )
            else:
                bad_steps = 0
                optimizer.step()
                if critic_optimizer and (critic_loss := stage.critic_loss()) is not None:
                    critic_optimizer.zero_grad(set_to_none=True)
                    critic_loss.backward()
                    critic_optimizer.step()
                    figures["critic"] = critic_loss.item()
                _move_average(average, model, min(config.ema, (1 + step) / (10 + step)))
                stage.after_step(step)
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                now = time.monotonic()
                figures |= {
                    "loss": loss.item(),
                    "gradient_norm": norm.item(),
                    "learning_rate": learning_rate(config, step),
                }
                figures["images_per_second"] = (done - seen) * config.batch_size / max(now - clock, 1e-9)
                clock, seen = now, done
                log.write(done, figures)
                progress.update(task, note=_note(figures))
            progress.update(task, completed=done)
            stopping = asked_to_stop() and done < config.steps
            held_out_loss = None
            if done % config.validate_every == 0 or done == config.steps:
                average.eval()
                with torch.no_grad():
                    held_out = stage.validate(average, config.out / "samples" / f"step-{done:08d}")
                log.write(done, held_out)
                console.print(f"step {done}: {_note(held_out)}")
                held_out_loss = stage.held_out_loss(held_out)
                clock, seen = time.monotonic(), done
            if held_out_loss is not None or stopping or done % (config.save_every or config.validate_every) == 0:
                snapshot(done, held_out_loss)
            if stopping:
                raise StoppedEarly(done)
    path = config.out / f"{config.stage}.safetensors"
    stage.save(average, path)
    return path


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to ``final_learning_rate`` of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    floor = config.final_learning_rate
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA when there; raises `MedvarError` for a device that is not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MedvarError(f"There is no device {name!r} here: {error}. Use device=cpu or device=auto.") from error
    return device


def _precision(config: TrainConfig, device: torch.device) -> str:
    if config.precision != "auto":
        return config.precision
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if fast else "float32"


def _cpu_has_bfloat16() -> bool:
    """Whether products in bfloat16 run in hardware; emulated they are slower than float32."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    return bool(torch.cpu._is_avx512_bf16_supported()) if "AVX512" in capabilities else False


def _copy(model: nn.Module) -> nn.Module:
    average = copy.deepcopy(model).eval()
    return average.requires_grad_(False)


@torch.no_grad()
def _move_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mine, its in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(its)


def _adamw(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, without weight decay on vectors (biases, norms, embeddings of scale and position)."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _restore(
    found: Checkpoint,
    stage: Stage,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    critic_optimizer: torch.optim.Optimizer | None,
) -> None:
    try:
        stage.model.load_state_dict(dict(found.tensors["model"]))
        average.load_state_dict(dict(found.tensors["average"]))
        restore_optimizer(optimizer, found.tensors["optimizer"])
        for name, module in stage.state.items():
            module.load_state_dict(dict(found.tensors[name]))
        if stage.critic and critic_optimizer and "critic" in found.tensors:
            stage.critic.load_state_dict(dict(found.tensors["critic"]))
            restore_optimizer(critic_optimizer, found.tensors["critic_optimizer"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise MedvarError(
            f"The checkpoint of step {found.step} does not fit this configuration: {error}. "
            "Resume with the configuration that the run was started with, or choose another out folder."
        ) from error


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console)


def _note(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
