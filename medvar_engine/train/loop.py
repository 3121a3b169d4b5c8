"""The training loop, one for all stages.

Every random number of step ``s`` comes from generators seeded with the seed, ``s`` and the micro-batch. A resumed run
therefore continues exactly as if it had not stopped, and several processes give the same result as one.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.console import Console

from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import Metric
from medvar_engine.train.batches import read_ahead
from medvar_engine.train.checkpoint import best_checkpoint, newest_checkpoint, remove_unfinished, save_checkpoint
from medvar_engine.train.config import TrainConfig, about_run, check_resumable
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.early_stopping import Patience
from medvar_engine.train.optimise import learning_rate
from medvar_engine.train.progress import TrainingProgress
from medvar_engine.train.stage import Stage
from medvar_engine.train.stop_signal import StoppedEarly, stop_requests
from medvar_engine.train.summary import write_summary
from medvar_engine.train.trainer import Trainer

MAX_BAD_STEPS = 20  # successive non-finite losses before a run ends


def train(config: TrainConfig, stage: Stage, processes: Processes, *, resume: bool, console: Console) -> Path:
    """Run ``config.steps`` steps and return the path of the finished model, ``out/<stage>.safetensors``.

    The model is the one with the lowest held-out loss, unless ``config.shipped`` says otherwise. With
    ``config.patience``, the run ends after that number of validations without a better held-out loss. After a stop
    signal, it ends the step, saves a checkpoint and raises `StoppedEarly`. Raises `MedvarError` when the loss stays
    non-finite.
    """
    parts = processes.size * config.accumulate
    trainer, checkpoints, about = (
        Trainer(config, stage, processes),
        config.out / "checkpoints",
        about_run(config, parts),
    )
    start, patience, resumed, began = 0, Patience(), False, time.monotonic()
    if processes.is_main:
        remove_unfinished(checkpoints)
    if resume and (found := newest_checkpoint(checkpoints, processes, console.print)):
        check_resumable(about, found.values)
        trainer.restore(found.path)
        start, patience, resumed = found.step, Patience(*found.values["patience_so_far"]), True
        began -= found.values.get("seconds_so_far", 0.0)
        console.print(f"Resumed at step {start} of {config.steps}.")
    elif resume:
        console.print(f"There is no intact checkpoint in {checkpoints}, so the run starts at step 0.")

    def save(step: int, held_out_loss: float | None) -> None:
        so_far = {"patience_so_far": [patience.best, patience.waited], "seconds_so_far": time.monotonic() - began}
        save_checkpoint(
            checkpoints, step, trainer.write, about | so_far, held_out_loss, keep=config.keep, processes=processes
        )

    def validate(step: int, watch: TrainingProgress) -> float:
        trainer.average.eval()
        with torch.no_grad():
            metrics = stage.validate(trainer.average, watch.samples(step))
        watch.validated(step, metrics)
        return stage.held_out_loss(metrics)

    def out_of_patience() -> bool:
        return config.patience is not None and patience.waited >= config.patience

    mine = range(processes.rank * config.accumulate, (processes.rank + 1) * config.accumulate)
    bad_steps = 0
    with (
        stop_requests() as asked_to_stop,
        TrainingProgress(config, start, console, processes) as watch,
        read_ahead(stage.batches, range(start, config.steps), mine, config.workers, processes.device) as batches,
    ):
        if config.init is not None and not resumed:  # the initial model may be better than all later ones
            patience = patience.after(loss_before := validate(0, watch))
            save(0, loss_before)
        for step in range(start, start if out_of_patience() else config.steps):
            loss, norm, metrics = trainer.gradients(step, [(part, next(batches)) for part in mine])
            finite = bool(torch.isfinite(loss) & torch.isfinite(norm))
            bad, stopping = processes.any(not finite, asked_to_stop())
            bad_steps = bad_steps + 1 if bad else 0
            if bad_steps >= MAX_BAD_STEPS:
                raise MedvarError(
                    f"The loss was not finite for {bad_steps} steps in a row, up to step {step}. "
                    "Lower learning_rate or set precision=float32, and resume from the last checkpoint."
                )
            if not bad:
                metrics |= trainer.update(step)
            done = step + 1
            watch.step(
                done, metrics | {Metric("gradient_norm"): norm, Metric("learning_rate"): learning_rate(config, step)}
            )
            held_out_loss = None
            if done % config.validate_every == 0 or done == config.steps:
                held_out_loss = validate(done, watch)
                patience = patience.after(held_out_loss)
            stopping = stopping and done < config.steps and not out_of_patience()
            if held_out_loss is not None or stopping or done % (config.save_every or config.validate_every) == 0:
                save(done, held_out_loss)
            if stopping:
                raise StoppedEarly(done)
            if out_of_patience():
                break
    if (config.shipped == "best" or config.patience is not None) and (
        best := best_checkpoint(checkpoints, processes, console.print)
    ):
        console.print(f"The model is taken from step {best.step}, the best on held-out patients.")
        trainer.restore(best.path)
    path = config.out / f"{config.stage}.safetensors"
    if (model := trainer.averaged()) is not None:
        stage.save(model, path)
        console.print(f"Summary of the run: {write_summary(config.out, about)}")
    return path
