"""Stage ``preview``: a light decoder learns from the full one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import Metric, read_log
from medvar_engine.models.weight_files import load_preview, load_tokenizer, read_tensors
from medvar_engine.tokens.codebook import codebook_digest
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run
from medvar_engine.train.stage import Batch, Metrics
from medvar_engine.train.stages.preview_stage import PreviewStage

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def make_preview(make_config: MakeConfig, tokenizer_file: Path) -> MakeConfig:
    """Runs of this stage, on the untrained tokenizer of the tiny preset."""
    return lambda **changes: make_config(**({"stage": "preview", "tokenizer": tokenizer_file} | changes))


def held_out_psnr(config: TrainConfig, scale: int | None = None) -> list[float]:
    """Of a run, over its steps."""
    return [value for _, value in read_log(config.out / "log.csv")[Metric("psnr", "held_out", scale)]]


def test_the_light_decoder_learns_the_full_one(
    make_preview: MakeConfig, console: Console, tokenizer_file: Path
) -> None:
    """Previews would be no likeness of what the full decoder makes of the same scales, on patients not trained on."""
    config = make_preview(steps=120, batch_size=8, learning_rate=1e-2, warmup=5, validate_every=60, ema=0.9)
    _, codebook = load_preview(run(config, console=console))
    first, last = held_out_psnr(config)
    assert last > first > 10
    assert all(len(held_out_psnr(config, k)) == 2 for k in range(4))
    tokenizer = load_tokenizer(tokenizer_file)
    assert codebook == codebook_digest(tokenizer.quantizer.codebook.weight.numpy())
    assert len(list((config.out / "samples").rglob("previews.png"))) == 2


def test_it_sees_every_number_of_scales(
    make_preview: MakeConfig, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Previews of scales that training never showed would be noise."""
    seen: list[torch.Tensor] = []
    original = PreviewStage._latents

    def latents(self: PreviewStage, images: torch.Tensor) -> torch.Tensor:
        found = original(self, images)
        seen.append(found)
        return found

    shown: list[torch.Tensor] = []

    def loss(self: PreviewStage, batch: Batch, step: int) -> tuple[torch.Tensor, Metrics]:
        handle = self.model.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
        try:
            return before(self, batch, step)
        finally:
            handle.remove()

    before = PreviewStage.loss
    monkeypatch.setattr(PreviewStage, "loss", loss)
    monkeypatch.setattr(PreviewStage, "_latents", latents)
    run(make_preview(steps=12, batch_size=8, augment=False, validate_every=100), console=console)
    depths = {
        int(np.argmin([float((of_scale[i] - latent).abs().max()) for of_scale in all_scales]))
        for all_scales, latents_shown in zip(seen, shown, strict=False)
        for i, latent in enumerate(latents_shown)
    }
    assert depths == {0, 1, 2, 3}


def test_the_tokenizer_is_unchanged(make_preview: MakeConfig, console: Console, tokenizer_file: Path) -> None:
    """Training a light decoder would change what images look like."""
    before = tokenizer_file.read_bytes()
    path = run(make_preview(), console=console)
    assert tokenizer_file.read_bytes() == before
    names, _ = read_tensors(path)
    assert not any(name.startswith(("encoder", "decoder", "quantizer")) for name in names)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    make_preview: MakeConfig, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run on a machine that is taken away now and then could not be repeated or compared."""
    whole, broken = (make_preview(out=tmp_path / name) for name in ("whole", "broken"))
    expected = run(whole, console=console)
    original = PreviewStage.loss

    def loss(self: PreviewStage, batch: Batch, step: int) -> tuple[torch.Tensor, Metrics]:
        if step == 4:
            raise KeyboardInterrupt
        return original(self, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(PreviewStage, "loss", loss)
        with pytest.raises(KeyboardInterrupt):
            run(broken, console=console)
    again, (ours, _) = read_tensors(run(broken, resume=True, console=console)), read_tensors(expected)
    assert all(torch.equal(tensor, again[0][name]) for name, tensor in ours.items())


def test_it_needs_a_tokenizer(make_preview: MakeConfig, tmp_path: Path, console: Console) -> None:
    """Whoever forgets the tokenizer, or mistypes it, has to read that at once."""
    with pytest.raises(MedvarError, match="needs a trained tokenizer"):
        make_preview(tokenizer=None)
    with pytest.raises(MedvarError, match=r"no file .*nowhere"):
        run(make_preview(tokenizer=tmp_path / "nowhere.safetensors"), console=console)
