"""`precision=bfloat16`: what new GPUs train in, and what no test on a CPU would choose by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from medvar_engine.metric_log import Metric, read_log
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run

STAGES: dict[str, dict[str, Any]] = {
    "tokenizer": {"tokenizer": None, "adversarial": 0.5, "adversarial_start": 0.3},
    "transformer": {"corruption": 0.3, "z_loss": 1e-4, "recompute": True},
    "preview": {},
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_trains_in_bfloat16(
    make_config: Callable[..., TrainConfig], tokenizer_file: Path, tmp_path: Path, console: Console, stage: str
) -> None:
    """A run on a GPU would end in its first step, for types that do not fit, or learn from what is not finite."""
    logs = []
    for precision in ("float32", "bfloat16"):
        settings = {"stage": stage, "tokenizer": tokenizer_file, "steps": 3} | STAGES[stage]
        config = make_config(**settings, precision=precision, out=tmp_path / precision)
        run(config, console=console)
        logs.append(read_log(config.out / "log.csv"))
    exact, rounded = logs
    assert exact.keys() == rounded.keys()
    assert all(np.isfinite(value) for points in rounded.values() for _, value in points)
    assert rounded[Metric("loss")] != exact[Metric("loss")]  # it is another precision indeed
    assert rounded[Metric("loss")][0][1] == pytest.approx(exact[Metric("loss")][0][1], rel=0.05)
