"""What a person sees of a run: a progress bar, remarks, and the logs in its folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import World
from medvar_engine.train.stage import Figures
from medvar_engine.train.training_log import CsvLog, TensorBoardLog

_HEADLINE = ("held_out_", "codes_used", "code_entropy")  # how names of a validation begin that are of all slices
_RATES = ("images_per_second", "memory_gb")


class Watch:
    """Only the process that leads shows and writes; the others help to take means."""

    def __init__(self, config: TrainConfig, start: int, console: Console, world: World) -> None:
        self._config, self._console, self._world = config, console, world
        self._logs: list[CsvLog | TensorBoardLog] = [CsvLog(config.out / "log.csv", start)] if world.leads else []
        if config.tensorboard and world.leads:
            self._logs.append(TensorBoardLog(config.out / "tensorboard", start))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not world.leads)
        self._task = self._progress.add_task(config.stage, total=config.steps, completed=start, note="")
        self._clock, self._seen = time.monotonic(), start

    def __enter__(self) -> Watch:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, done: int, figures: Figures) -> None:
        """After every step, of which each ``log_every``-th is written down."""
        if done % self._config.log_every == 0 or done == self._config.steps:
            now = time.monotonic()
            speed = (done - self._seen) * self._config.batch_size / max(now - self._clock, 1e-9)
            self._clock, self._seen = now, done
            told = self._world.mean(figures) | {"images_per_second": speed} | _memory(self._world.device)
            self._write(done, told)
            self._progress.update(self._task, note=_note(told))
        self._progress.update(self._task, completed=done)

    def samples(self, done: int) -> Path | None:
        """Where the sample grids of a validation go."""
        return self._config.out / "samples" / f"step-{done:08d}" if self._world.leads else None

    def validated(self, done: int, figures: Mapping[str, float]) -> None:
        """After every validation."""
        self._write(done, figures)
        for log in self._logs:
            if isinstance(log, TensorBoardLog) and (folder := self.samples(done)):
                log.show(done, folder)
        self._console.print(f"step {done}: {_note(figures)}")
        self._clock, self._seen = time.monotonic(), done

    def _write(self, done: int, figures: Mapping[str, float]) -> None:
        for log in self._logs:
            log.write(done, figures)


def _memory(device: torch.device) -> dict[str, float]:
    """The most that this process has held so far, of the device's memory or else the machine's, where that is told."""
    if device.type == "cuda":
        return {"memory_gb": torch.cuda.max_memory_allocated(device) / 2**30}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"memory_gb": peak / (2**30 if sys.platform == "darwin" else 2**20)}


def _note(figures: Mapping[str, float]) -> str:
    """A few figures on one line: what matters most of a validation, and speed and memory of a step, are never cut."""
    shown = [name for name in figures if "_scale_" not in name]
    headline = [name for name in shown if name.startswith(_HEADLINE)]
    others = [name for name in shown if name not in headline and name not in _RATES]
    rates = [name for name in _RATES if name in figures]
    return "  ".join(f"{name} {figures[name]:.4g}" for name in [*headline, *others[:3], *rates])
