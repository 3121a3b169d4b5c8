from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from rich.console import Console
from torch import Tensor

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import MetricLog, read_log
from medvar_engine.models.weight_files import load_tokenizer, load_transformer, read_tensors
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.optimise import learning_rate
from medvar_engine.train.run_training import run
from medvar_engine.train.stage import Batch, Metrics
from medvar_engine.train.stages.refiner_stage import RefinerStage
from medvar_engine.train.stages.tokenizer_stage import TokenizerStage
from medvar_engine.train.stages.transformer_stage import TransformerStage
from medvar_engine.train.stop_signal import StoppedEarly

MakeConfig = Callable[..., TrainConfig]

KINDS: dict[str, dict[str, object]] = {
    "tokenizer": {},
    "adversarial": {"adversarial": 0.5, "adversarial_start": 0.3},
    "accumulated": {"accumulate": 2},
    "gradient": {"codebook_learning": "gradient", "log_l2": 0.5},
    "refiner": {"preset": "resolution", "adversarial": 0.5, "adversarial_start": 0.3, "texture": 1.0},
    "transformer": {"stage": "transformer", "dropout": 0.1},
    "resolution": {
        "stage": "transformer",
        "preset": "resolution",
        "optimizer": "muon",
        "corruption": 0.3,
        "coarse_slices": 6,
    },
    "corrupted": {"stage": "transformer", "corruption": 0.3, "coarse_slices": 6, "z_loss": 1e-4, "recompute": True},
}


def log_of(config: TrainConfig) -> dict[tuple[int, str], float]:
    """(step, name) → value, without speed and memory."""
    curves = read_log(config.out / "log.csv")
    return {
        (step, str(metric)): value
        for metric, points in curves.items()
        for step, value in points
        if metric.name not in ("images_per_second", "memory_gb")
    }


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a step."""
    for stage in (TokenizerStage, RefinerStage, TransformerStage):
        original = stage.loss

        def loss(self: object, batch: Batch, now: int, original: Callable = original) -> object:
            if now == step:
                raise KeyboardInterrupt
            return original(self, batch, now)

        monkeypatch.setattr(stage, "loss", loss)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    make_config: MakeConfig, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A run on a machine that is taken away now and then could not be repeated or compared."""
    whole, broken = (make_config(out=tmp_path / name, **KINDS[kind]) for name in ("whole", "broken"))
    expected = run(whole, console=console)
    with monkeypatch.context() as patch:
        interrupt_at(4, patch)
        with pytest.raises(KeyboardInterrupt):
            run(broken, console=console)
    assert not (broken.out / expected.name).exists()
    assert max(step for step, _ in log_of(broken)) == 4
    found = run(broken, resume=True, console=console)
    assert found.read_bytes() == expected.read_bytes()
    assert log_of(broken) == log_of(whole)
    for name in os.listdir(whole.out / "checkpoints" / "step-00000006"):
        if name.endswith(".safetensors"):
            ours, theirs = (read_tensors(c.out / "checkpoints" / "step-00000006" / name)[0] for c in (whole, broken))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1"])
def test_a_stopped_run_saves_a_checkpoint(
    make_config: MakeConfig, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    """A scheduler that takes a machine away would throw away everything since the last validation."""
    whole, stopped = (make_config(out=tmp_path / name) for name in ("whole", "stopped"))
    expected = run(whole, console=console)
    original = TokenizerStage.loss

    def loss(self: TokenizerStage, batch: Batch, step: int) -> object:
        if step == 2:
            os.kill(os.getpid(), getattr(signal, number))
        return original(self, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(TokenizerStage, "loss", loss)
        with pytest.raises(StoppedEarly, match=r"step 3.*--resume"):
            run(stopped, console=console)
    assert (stopped.out / "checkpoints" / "step-00000003").is_dir()
    assert signal.getsignal(getattr(signal, number)) == signal.SIG_DFL
    assert run(stopped, resume=True, console=console).read_bytes() == expected.read_bytes()


def test_two_runs_do_not_share_a_folder(make_config: MakeConfig, console: Console) -> None:
    """Two runs started by mistake would overwrite each other's checkpoints."""
    config = make_config()
    config.out.mkdir(parents=True)
    with FileLock(config.out / ".lock"), pytest.raises(MedvarError, match="Another run"):
        run(config, console=console)
    run(config, console=console)


@pytest.mark.parametrize("change", [{"learning_rate": 0.123}, {"seed": 5}, {"batch_size": 3}], ids=str)
def test_a_run_is_not_resumed_as_another(make_config: MakeConfig, console: Console, change: dict[str, Any]) -> None:
    """The result would be that of neither configuration, and the log would tell of one."""
    config = make_config()
    run(config, console=console)
    with pytest.raises(MedvarError, match=f"{next(iter(change))} was .* and is"):
        run(replace(config, steps=config.steps, **change), resume=True, console=console)
    run(replace(config, log_every=1, keep=1), resume=True, console=console)


def test_checkpoints_come_as_often_as_requested(make_config: MakeConfig, console: Console) -> None:
    """A long run would lose hours, since validation is too dear to be done often."""
    config = make_config(save_every=1, keep=100)
    run(config, console=console)
    assert len(list((config.out / "checkpoints").glob("step-*"))) == config.steps


def test_training_learns(make_config: MakeConfig, console: Console) -> None:
    """A sign or a detached tensor could be wrong, and all else would still pass."""
    config = make_config(steps=40, batch_size=8, learning_rate=5e-3, validate_every=40, continuous=0.0)
    run(config, console=console)
    log = log_of(config)
    first, last = (np.mean([log[step, "l1"] for step in steps]) for steps in (range(1, 6), range(36, 41)))
    assert last < 0.8 * first
    tokenizer = config.out / "tokenizer.safetensors"
    config = make_config(stage="transformer", tokenizer=tokenizer, out=config.out / "second", steps=30, batch_size=8)
    run(config, console=console)
    log = log_of(config)
    assert log[30, "loss"] < 0.9 * log[1, "loss"]
    assert log[1, "loss"] == pytest.approx(np.log(128), rel=0.05)  # a fresh transformer knows nothing


def test_the_files_of_a_run_are_usable(make_config: MakeConfig, tmp_path: Path, console: Console) -> None:
    """Hours of training would end in files that nothing reads."""
    tokenizer = run(make_config(), console=console)
    assert load_tokenizer(tokenizer).config.image_size == 16
    config = make_config(stage="transformer", tokenizer=tokenizer, out=tmp_path / "second", factors=("modality",))
    transformer, labels = load_transformer(run(config, console=console))
    assert transformer.config.vocabulary == 128
    assert labels.to_dict() == {"modality": ["CT"]}
    assert (tmp_path / "run" / "samples" / "step-00000006" / "reconstructions.png").is_file()
    assert (config.out / "samples" / "step-00000003" / "samples.png").is_file()
    for folder, expected in ((tmp_path / "run", "MR brain"), (config.out, "held-out accuracy")):
        page = (folder / "summary.html").read_text(encoding="utf-8")
        assert expected in page
        assert page.count("<img") >= 2
        assert "<script" not in page


@pytest.mark.parametrize("stage", ["tokenizer", "transformer"])
def test_held_out_patients_are_used_for_validation_only(
    make_config: MakeConfig, console: Console, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Figures on the training set look better than they are."""
    seen: list[tuple[str, str]] = []
    batch = SliceDataset.batch

    def noting(self: SliceDataset, indices: np.ndarray) -> np.ndarray:
        seen.extend((str(self.split), self.rows[int(i)].patient) for i in indices)
        return batch(self, indices)

    monkeypatch.setattr(SliceDataset, "batch", noting)
    config = make_config(stage=stage)
    run(config, console=console)
    assert {patient for split, patient in seen if split == "train"} <= {f"CT-{i}" for i in range(4)}
    assert {patient for split, patient in seen if split == "test"} == {"MR-4"}
    names = {name for _, name in log_of(config)}
    if stage == "tokenizer":
        assert {
            "held-out psnr, MR brain",
            "held-out ssim, MR brain",
            "held-out ssim",
            "held-out code entropy, scale 2",
        } <= names
        assert "held-out psnr, CT chest" not in names
    else:
        assert {"held-out loss", "held-out loss, MR brain"} <= names
        assert "held-out loss, CT chest" not in names


def test_the_transformer_is_measured_by_region(
    make_config: MakeConfig, other_slices: Callable[..., Path], tmp_path: Path, console: Console
) -> None:
    """A model that knows chests and not brains would pass for a fair one; or losses of training would stand for it."""
    data = other_slices(tmp_path / "both", held_out=("MR", "CT-0"))
    config = make_config(stage="transformer", data=data, steps=3, validate_slices=8)  # four of each
    run(config, console=console)
    log = log_of(config)
    losses = [log[3, f"held-out loss, {region}"] for region in ("CT chest", "MR brain")]
    assert losses[0] != losses[1]
    assert np.mean(losses) == pytest.approx(log[3, "held-out loss"], rel=1e-6)
    tokens = np.array([1, 4, 9, 16])
    by_scale = [log[3, f"held-out loss, scale {k}"] for k in range(4)]
    assert tokens @ by_scale / tokens.sum() == pytest.approx(log[3, "held-out loss"], rel=1e-6)
    page = (config.out / "summary.html").read_text(encoding="utf-8")
    table = page[page.index("Region by region") :]
    assert f"{losses[0]:.4g}" in table[: table.index("</table>")]
    assert "scale 0" not in table[: table.index("</table>")]


def test_a_feature_network_teaches_and_measures(
    make_config: MakeConfig, feature_network_file: Path, tmp_path: Path, console: Console
) -> None:
    """Its weight would do nothing; or a network that is frozen would not let gradients through to what is trained."""
    logs = []
    for perceptual in (0.0, 5.0):
        config = make_config(
            perceptual=perceptual, feature_network=feature_network_file, out=tmp_path / f"{perceptual}"
        )
        run(config, console=console)
        logs.append(log_of(config))
    plain, taught = logs
    assert taught[1, "loss"] > plain[1, "loss"]
    assert taught[1, "l1"] == plain[1, "l1"]  # before anything is learned
    assert taught[1, "gradient norm"] != plain[1, "gradient norm"]
    assert taught[6, "l1"] != plain[6, "l1"]
    for log in logs:
        assert log[6, "held-out feature distance"] == log[6, "held-out feature distance, MR brain"] > 0


def test_the_discriminator_starts_when_configured(make_config: MakeConfig, console: Console) -> None:
    """The adversarial switch would do nothing, or break training from its first step."""
    config = make_config(adversarial=0.5, adversarial_start=0.5)
    run(config, console=console)
    log = log_of(config)
    assert [step for step in range(1, 7) if (step, "critic") in log] == [4, 5, 6]
    assert all(np.isfinite(value) for value in log.values())
    assert not any(name == "critic" for _, name in log_of(_ran(make_config(out=config.out / "plain"), console)))


def _ran(config: TrainConfig, console: Console) -> TrainConfig:
    run(config, console=console)
    return config


def test_a_full_disk_stops_the_run_with_a_message(
    make_config: MakeConfig, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week's run would end in a traceback, and perhaps in a checkpoint that is none."""
    config = make_config()
    calls = 0
    fsync = os.fsync

    def full_later(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 12:  # of the log and the first checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_later)
        with pytest.raises(MedvarError, match="No space left"):
            run(config, console=console)
    assert [p.name for p in (config.out / "checkpoints").iterdir()] == ["step-00000003"]

    def no_log(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(MetricLog, "write", no_log)
        with pytest.raises(MedvarError, match=r"No space left.*--resume"):
            run(config, resume=True, console=console)
    assert run(config, resume=True, console=console).is_file()


def test_a_bad_step_is_skipped_and_many_end_the_run(
    make_config: MakeConfig, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One overflow would turn all weights to NaN; or the run would go on for days without learning."""
    loss = TokenizerStage.loss
    bad: set[int] = {2}

    def sometimes(self: TokenizerStage, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        value, figures = loss(self, batch, step)
        return (value * float("nan") if step in bad else value), figures

    monkeypatch.setattr(TokenizerStage, "loss", sometimes)
    tensors, _ = read_tensors(run(make_config(), console=console))
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    bad.update(range(100))
    config = make_config(steps=50, validate_every=50)
    config = replace(config, out=config.out.with_name("bad"))
    with pytest.raises(MedvarError, match=r"not finite for 20 steps.*learning_rate"):
        run(config, console=console)


def test_a_setting_that_an_earlier_version_lacked_cannot_change(make_config: MakeConfig, console: Console) -> None:
    """A resumed run would learn from other slices than it began with, and nobody would know."""
    config = make_config(stage="transformer", steps=3)
    run(config, console=console)
    manifest = config.out / "checkpoints" / "step-00000003" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["values"]["coarse_slices"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(MedvarError, match="coarse_slices was 0 and is 4"):
        run(replace(config, coarse_slices=4), resume=True, console=console)
    run(config, resume=True, console=console)


def test_says_what_does_not_fit(
    make_config: MakeConfig, other_slices: Callable[..., Path], tmp_path: Path, console: Console
) -> None:
    """A run would fail deep inside torch, or overwrite another."""
    run(make_config(steps=1), console=console)
    with pytest.raises(MedvarError, match=r"another run.*--resume"):
        run(make_config(steps=1), console=console)
    with pytest.raises(MedvarError, match="started with other settings"):
        run(make_config(stage="transformer", steps=2), resume=True, console=console)
    large = other_slices(tmp_path / "large", size=32)
    for stage in ("tokenizer", "transformer"):
        with pytest.raises(MedvarError, match="32×32 pixels, but the model needs 16×16"):
            run(make_config(stage=stage, data=large, out=tmp_path / "new"), console=console)
    nobody = other_slices(tmp_path / "nobody", held_out="nobody")
    with pytest.raises(MedvarError, match="no slices in split 'test'"):
        run(make_config(data=nobody, out=tmp_path / "new"), console=console)
    with pytest.raises(MedvarError, match="preset"):
        run(make_config(preset="huge", out=tmp_path / "new"), console=console)
    with pytest.raises(MedvarError, match=r"no device 'cuda:99'.*device=cpu"):
        run(make_config(device="cuda:99", out=tmp_path / "new"), console=console)


def test_pyramids_are_encoded_once(make_config: MakeConfig, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every resume would encode the whole data set again; or go on with those of another tokenizer."""
    encoded: list[int] = []
    batch = SliceDataset.batch

    def counting(self: SliceDataset, indices: np.ndarray) -> np.ndarray:
        encoded.append(len(indices))
        return batch(self, indices)

    monkeypatch.setattr(SliceDataset, "batch", counting)
    config = make_config(stage="transformer", steps=1)
    run(config, console=console)
    assert sum(encoded) == 2 * 16 + 4  # two variants of the training slices; the held-out ones as they are
    encoded.clear()
    run(config, resume=True, console=console)
    assert encoded == []
    note = config.out / "pyramids-train.json"
    note.write_text(note.read_text()[:10])
    run(config, resume=True, console=console)
    assert sum(encoded) == 2 * 16


def test_learning_rate_rises_and_falls(make_config: MakeConfig) -> None:
    """The first steps would blow the weights up, or the last ones keep jumping about."""
    config = make_config(steps=100, warmup=10, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(b <= a for a, b in pairwise(rates[9:]))
    assert rates[55] == pytest.approx(0.55, abs=0.02)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert learning_rate(make_config(warmup=0), 0) == make_config().learning_rate


def test_training_the_decoder_does_not_change_tokens(make_config: MakeConfig, tmp_path: Path, console: Console) -> None:
    """A transformer speaks the tokens it was trained on: a better decoder must not make them mean something else."""
    first = run(make_config(out=tmp_path / "first"), console=console)
    second = run(make_config(out=tmp_path / "second", tokenizer=first, decoder_only=True), console=console)
    before, after = load_tokenizer(first), load_tokenizer(second)
    images = torch.from_numpy(SliceDataset(make_config().data, "test").batch([0, 1, 2]))
    with torch.no_grad():
        for ours, its in zip(before.encode(images), after.encode(images), strict=True):
            assert torch.equal(ours, its)
        latent = before.quantizer.decode(before.encode(images))
        assert torch.equal(latent, after.quantizer.decode(after.encode(images)))
        assert not torch.equal(before.decode(latent), after.decode(latent))


def test_training_of_a_tokenizer_can_be_continued(make_config: MakeConfig, tmp_path: Path, console: Console) -> None:
    """Fine-tuning that threw the codebook away in its first step would be worse than starting anew."""
    first = run(make_config(out=tmp_path / "first"), console=console)
    second = run(make_config(out=tmp_path / "second", tokenizer=first, steps=1), console=console)
    codes = [load_tokenizer(path).quantizer.codebook.weight for path in (first, second)]
    assert float((codes[0] - codes[1]).norm() / codes[0].norm()) < 0.2


def test_metrics_and_images_are_written_for_tensorboard(make_config: MakeConfig, console: Console) -> None:
    """Who watches runs of a cluster in a browser would see none."""
    from tensorboard.backend.event_processing import event_accumulator as accumulator

    config = make_config(tensorboard=True)
    run(config, console=console)
    found = accumulator.EventAccumulator(str(config.out / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in found.Images("reconstructions")] == [3, 6]


def test_early_stopping_ends_a_run_that_memorises(
    make_config: MakeConfig, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuning on few patients would go on past its best, and the best model would not be the one that is kept."""
    figures = iter([3.0, 1.0, 2.0, 2.0, 0.5])
    monkeypatch.setattr(TokenizerStage, "held_out_loss", lambda *_: next(figures))
    config = make_config(steps=50, validate_every=2, patience=2)
    path = run(config, console=console)
    log = log_of(config)
    assert max(step for step, _ in log) == 8
    best, _ = read_tensors(config.out / "checkpoints" / "step-00000004" / "average.safetensors")
    final, _ = read_tensors(path)
    assert all(torch.equal(best[name], final[name]) for name in final)
    run(config, resume=True, console=console)  # is at its end
    assert log_of(config) == log


def test_a_batch_in_parts_is_the_whole_batch(make_config: MakeConfig, tmp_path: Path, console: Console) -> None:
    """Less memory would mean another model."""
    tokenizer = make_config(stage="transformer").tokenizer
    without_noise = {"decoder_only": True, "tokenizer": tokenizer, "augment": False, "random_depth": 0.0}
    logs = []
    for accumulate in (1, 2, 4):
        config = make_config(out=tmp_path / str(accumulate), accumulate=accumulate, batch_size=4, **without_noise)
        run(config, console=console)
        logs.append({key: value for key, value in log_of(config).items() if key[1] != "psnr"})  # no mean of means
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)
    assert logs[2] == pytest.approx(logs[0], rel=1e-4)
    with pytest.raises(MedvarError, match=r"batch_size 4 cannot .* multiple of 3"):
        run(make_config(accumulate=3, batch_size=4, out=tmp_path / "odd"), console=console)
    odd = make_config(stage="transformer", accumulate=2, batch_size=4, coarse_slices=3, out=tmp_path / "odd")
    with pytest.raises(MedvarError, match=r"coarse_slices 3 cannot .* multiple of 2"):
        run(odd, console=console)


def test_the_initial_model_may_be_the_best(
    make_config: MakeConfig, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuning on too few patients would return something worse than the base as if it were an improvement."""
    first = run(make_config(stage="transformer", out=tmp_path / "first"), console=console)
    figures = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(TransformerStage, "held_out_loss", lambda *_: next(figures))
    config = make_config(stage="transformer", out=tmp_path / "second", init=first, patience=5)
    base, _ = load_transformer(first)
    kept, _ = load_transformer(run(config, console=console))
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), kept.parameters(), strict=True))


def test_a_transformer_has_the_shape_that_is_requested(make_config: MakeConfig, console: Console) -> None:
    """Comparing sizes would compare presets only."""
    config = make_config(stage="transformer", depth=2, width=64, heads=4, steps=1)
    shape = load_transformer(run(config, console=console))[0].config
    assert (shape.depth, shape.width, shape.heads) == (2, 64, 4)
    with pytest.raises(MedvarError, match="not a multiple of 3 heads"):
        run(replace(config, heads=3, out=config.out / "odd"), console=console)
