"""`compile=true`: the same training, by code that torch writes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch._dynamo.utils import counters

from medvar_engine.metric_log import Metric, read_log
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run

TRANSFORMER: dict[str, Any] = {
    "coarse_slices": 4,
    "stage": "transformer",
    "recompute": True,
    "depth": 2,
    "width": 32,
    "heads": 2,
}
KINDS: dict[str, dict[str, Any]] = {"tokenizer": {"random_depth": 0.0, "continuous": 0.0}, "transformer": TRANSFORMER}

SHOWN = (Metric("loss"), Metric("gradient_norm"), Metric("loss", "held_out"))


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_training_is_the_same(
    make_config: Callable[..., TrainConfig],
    tmp_path: Path,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """The switch would break a run in its first minute, or train something else, faster."""
    # All but the translation into machine code, which is torch's own, needs a compiler and takes minutes.
    captured = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", captured)
    counters.clear()
    figures = []
    for compiled in (False, True):
        settings = {"steps": 2, "validate_every": 2, "batch_size": 4, "accumulate": 2, "augment": False}
        config = make_config(**settings | KINDS[kind], compile=compiled, out=tmp_path / str(compiled))
        run(config, console=console)
        log = read_log(config.out / "log.csv")
        figures.append([value for one in SHOWN for _, value in log.get(one, ())])
        assert bool(counters["frames"]["ok"]) == compiled
    assert figures[1] == pytest.approx(figures[0], rel=1e-2)
    run(config, resume=True, console=console)  # its checkpoints are those of the plain model
