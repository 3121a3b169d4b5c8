"""What the console says of a run."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run import run


@pytest.mark.parametrize("stage", ["tokenizer", "preview"])
def test_the_console_tells_speed_memory_and_what_matters_most(
    make_config: Callable[..., TrainConfig], tokenizer_file: Path, console: Console, stage: str
) -> None:
    """Who watches would see neither that a run crawls or fills the memory, nor that its codebook collapses."""
    config = make_config(stage=stage, tokenizer=tokenizer_file, steps=2, validate_every=2)
    run(config, console=console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert re.search(r"2/2 .* loss \S+  l1 \S+  psnr \S+  images_per_second \S+  memory_gb \S+", said)
    assert "_scale_" not in said
    (validation,) = re.findall("step 2: (.*)", said)
    if stage == "tokenizer":
        names = validation.split()[::2]
        assert names[:4] == ["held_out_psnr", "held_out_ssim", "codes_used", "code_entropy"]
        assert "psnr_MR_brain" in names[4:]
    else:
        assert validation.startswith("held_out_psnr ")
