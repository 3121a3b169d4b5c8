"""Progress of a run for the user: a progress bar, messages, and the logs in its folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medvar_engine.metric_log import LOG, Metric, MetricLog
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.stage import Metrics
from medvar_engine.train.tensorboard_log import TensorBoardLog

SPEED, MEMORY = Metric("images_per_second"), Metric("memory_gb")


class TrainingProgress:
    """Shows progress and writes logs in the main process; the other processes contribute to mean values."""

    def __init__(self, config: TrainConfig, start: int, console: Console, processes: Processes) -> None:
        self._config, self._console, self._processes = config, console, processes
        self._logs: list[MetricLog | TensorBoardLog] = [MetricLog(config.out / LOG, start)] if processes.is_main else []
        if config.tensorboard and processes.is_main:
            self._logs.append(TensorBoardLog(config.out / "tensorboard", start))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns, TextColumn("{task.fields[note]}"), console=console, disable=not processes.is_main
        )
        self._task = self._progress.add_task(config.stage, total=config.steps, completed=start, note="")
        self._clock, self._seen = time.monotonic(), start

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, done: int, metrics: Metrics) -> None:
        """Report a step; every ``log_every``-th step is logged."""
        if done % self._config.log_every == 0 or done == self._config.steps:
            now = time.monotonic()
            speed = (done - self._seen) * self._config.batch_size / max(now - self._clock, 1e-9)
            self._clock, self._seen = now, done
            means = self._processes.mean(metrics) | {SPEED: speed} | _memory(self._processes.device)
            self._write(done, means)
            self._progress.update(self._task, note=_note(means))
        self._progress.update(self._task, completed=done)

    def samples(self, done: int) -> Path | None:
        """The folder for the sample grids of a validation; None in other processes."""
        return self._config.out / "samples" / f"step-{done:08d}" if self._processes.is_main else None

    def validated(self, done: int, metrics: Mapping[Metric, float]) -> None:
        """Report the metrics of a validation."""
        self._write(done, metrics)
        for log in self._logs:
            if isinstance(log, TensorBoardLog) and (folder := self.samples(done)):
                log.show(done, folder)
        self._console.print(f"step {done}: {_note(metrics)}")
        self._clock, self._seen = time.monotonic(), done

    def _write(self, done: int, metrics: Mapping[Metric, float]) -> None:
        for log in self._logs:
            log.write(done, metrics)


def _memory(device: torch.device) -> dict[Metric, float]:
    """Peak memory of this process so far, on the device or else the machine, if the system reports it."""
    if device.type == "cuda":
        return {MEMORY: torch.cuda.max_memory_allocated(device) / 2**30}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {MEMORY: peak / (2**30 if sys.platform == "darwin" else 2**20)}


def _note(metrics: Mapping[Metric, float]) -> str:
    """Metrics as one line. Overall held-out metrics, speed and memory are never cut."""
    shown = [metric for metric in metrics if metric.scale is None]
    headline = [metric for metric in shown if metric.split == "held_out" and not metric.region]
    others = [metric for metric in shown if metric not in headline and metric not in (SPEED, MEMORY)]
    rates = [metric for metric in (SPEED, MEMORY) if metric in metrics]
    return "  ".join(f"{metric} {metrics[metric]:.4g}" for metric in [*headline, *others[:3], *rates])
