"""Runs of several processes: workers that read, and copies or shares of a model that learn together."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from medvar_engine.metric_log import read_log
from medvar_engine.models.weight_files import load_transformer
from medvar_engine.train.config import TrainConfig, config_to_dict
from medvar_engine.train.run_training import run

MakeConfig = Callable[..., TrainConfig]
WIDE = {"COLUMNS": "500"}  # so that no message is broken


def log_of(config: TrainConfig) -> dict[tuple[int, str], float]:
    """(step, name) → value, without speed and memory."""
    curves = read_log(config.out / "log.csv")
    return {
        (step, str(metric)): value
        for metric, points in curves.items()
        for step, value in points
        if metric.name not in ("images_per_second", "memory_gb")
    }


def torchrun(config: TrainConfig, *options: str, processes: int = 2) -> str:
    """Train as a user of several GPUs would, on the CPU; gives what was said."""
    done = subprocess.run(
        command(config, *options, processes=processes), capture_output=True, text=True, env=os.environ | WIDE
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def command(config: TrainConfig, *options: str, processes: int = 2) -> list[str]:
    settings = [f"{name}={_yaml(value)}" for name, value in config_to_dict(config).items() if value is not None]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, str(Path(__file__).with_name("tiny_train.py")), *settings, *options]


def _yaml(value: object) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple | list) else str(value)


@pytest.mark.parametrize("stage", ["tokenizer", "transformer"])
def test_reading_ahead_changes_nothing(
    make_config: MakeConfig, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A run that is resumed on a machine with more cores, or fewer, would not be the run that was stopped."""
    changes = {"stage": stage, "steps": 4, "validate_every": 2}
    alone, stopped = (make_config(out=tmp_path / name, **changes) for name in ("alone", "stopped"))
    expected = run(alone, console=console)
    ahead = make_config(out=stopped.out, workers=2, **changes)
    run(ahead, console=console)
    assert log_of(ahead) == log_of(alone)
    for latest in (ahead.out / "checkpoints" / "step-00000004", ahead.out / f"{stage}.safetensors"):
        shutil.rmtree(latest) if latest.is_dir() else latest.unlink()
    found = run(ahead, resume=True, console=console)  # from step 2
    assert found.read_bytes() == expected.read_bytes()
    assert log_of(ahead) == log_of(alone)


SETTINGS = {
    "tokenizer": {"adversarial": 0.5, "adversarial_start": 0.3, "batch_size": 4},
    "transformer": {"stage": "transformer", "dropout": 0.1, "corruption": 0.2, "batch_size": 4, "coarse_slices": 6},
    "sharded": {
        "stage": "transformer",
        "dropout": 0.1,
        "batch_size": 8,
        "coarse_slices": 4,
        "accumulate": 2,
        "recompute": True,
        "shard": True,
    },
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_two_processes_learn_what_one_learns(
    make_config: MakeConfig, tmp_path: Path, console: Console, kind: str
) -> None:
    """A recipe that was tried on one GPU would train another model on eight, and nobody would know why."""
    two = make_config(out=tmp_path / "two", **SETTINGS[kind])
    one = replace(two, out=tmp_path / "one", accumulate=2 * two.accumulate, shard=False)
    run(one, console=console)
    torchrun(two)
    # Sums of the same numbers in another order: found are 4e-7 at most, of a log with eight digits.
    assert log_of(two) == pytest.approx(log_of(one), rel=1e-5, abs=1e-7)
    assert {name for step, name in log_of(two) if step == 6} >= {"loss", "gradient norm"}
    if kind != "sharded":
        return
    whole = (two.out / "transformer.safetensors").read_bytes()
    shutil.rmtree(two.out / "checkpoints" / "step-00000006")
    assert "Resumed at step 3" in torchrun(two, "--resume")
    assert (two.out / "transformer.safetensors").read_bytes() == whole
    load_transformer(two.out / "transformer.safetensors")  # whole, not one process's share
    kept = {path.suffix for path in (two.out / "checkpoints" / "step-00000006").iterdir()}
    assert kept == {".safetensors", ".json"}  # nothing that runs code when it is read


def test_a_stopped_launcher_stops_the_run(make_config: MakeConfig, tmp_path: Path) -> None:
    """A cluster would end the job, and all that it learnt since the last checkpoint would be lost, or half-written."""
    changes = {"stage": "transformer", "steps": 60, "validate_every": 60, "batch_size": 4, "dropout": 0.1}
    whole, stopped = (make_config(out=tmp_path / name, **changes) for name in ("whole", "stopped"))
    torchrun(whole)
    launched = subprocess.Popen(command(stopped), stderr=subprocess.PIPE, text=True, env=os.environ | WIDE)
    log = stopped.out / "log.csv"
    while not (log.is_file() and any(line.startswith("3,") for line in log.read_text().splitlines())):
        assert launched.poll() is None
        time.sleep(0.05)
    launched.send_signal(signal.SIGTERM)
    launched.communicate()
    assert not (stopped.out / "transformer.safetensors").exists()
    (saved,) = (stopped.out / "checkpoints").glob("step-*")
    said = torchrun(stopped, "--resume")
    assert f"Resumed at step {int(saved.name.removeprefix('step-'))}" in said
    assert log_of(stopped) == log_of(whole)
    assert (stopped.out / "transformer.safetensors").read_bytes() == (
        whole.out / "transformer.safetensors"
    ).read_bytes()
