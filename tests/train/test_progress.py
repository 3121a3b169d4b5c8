"""What a person sees of a run: the console, and images."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run


@pytest.mark.parametrize("stage", ["tokenizer", "preview"])
def test_the_console_shows_speed_memory_and_main_metrics(
    make_config: Callable[..., TrainConfig], tokenizer_file: Path, console: Console, stage: str
) -> None:
    """Who watches would see neither that a run crawls or fills the memory, nor that its codebook collapses."""
    config = make_config(stage=stage, tokenizer=tokenizer_file, steps=2, validate_every=2)
    run(config, console=console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert re.search(r"2/2 .* loss \S+  l1 \S+  psnr \S+  images per second \S+  memory gb \S+", said)
    assert ", scale" not in said
    (validation,) = re.findall("step 2: (.*)", said)
    if stage == "tokenizer":
        names = [one.rsplit(" ", 1)[0] for one in validation.split("  ")]
        assert {f"held-out {name}" for name in ("psnr", "ssim", "codes used", "code entropy")} <= {*names[:5]}
        assert "held-out psnr, MR brain" in names[5:]
    else:
        assert validation.startswith("held-out psnr ")


def test_samples_are_shown_scale_by_scale(
    make_config: Callable[..., TrainConfig], other_slices: Callable[..., Path], tmp_path: Path, console: Console
) -> None:
    """A transformer whose coarse scales are wrong would show noise at the end, and nobody would see where it begins."""
    data = other_slices(tmp_path / "both", held_out="CT-0")  # both kinds to train on
    config = make_config(stage="transformer", data=data, steps=1)
    run(config, console=console)
    folder = config.out / "samples" / "step-00000001"
    with Image.open(folder / "samples.png") as samples, Image.open(folder / "ladders.png") as ladders:
        finished_result, rows = np.asarray(samples), np.asarray(ladders)
    assert rows.shape == (2 * 16, 4 * 16)  # a row a kind of slice, a column a scale
    assert np.array_equal(rows[:, -16:], finished_result[:, :16])
    assert not np.array_equal(rows[:, :16], rows[:, -16:])
    assert "<h3>ladders, step 00000001" in (config.out / "summary.html").read_text(encoding="utf-8")
