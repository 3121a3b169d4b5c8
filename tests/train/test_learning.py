"""Does the whole thing learn what it is to learn, and nothing that is not there?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from invented_facts import invented_facts
from rich.console import Console

from medvar_engine.conditions import Condition
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import ShardWriter
from medvar_engine.metric_log import Metric, read_log
from medvar_engine.models.sample import sample
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.models.transformer import TransformerConfig
from medvar_engine.models.weight_files import load_tokenizer, load_transformer
from medvar_engine.request import Sampling
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run
from medvar_engine.train.stages import transformer_stage
from medvar_engine.types import FloatArray
from medvar_engine.value_range import encode

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer of two blocks that drops nothing."""

    def small(_: str, tokenizer: TokenizerConfig, labels: tuple[int, ...]) -> TransformerConfig:
        shape = (tokenizer.schedule, tokenizer.vocabulary, tokenizer.latent_channels, labels)
        return TransformerConfig(*shape, depth=2, width=64, heads=2, condition_dropout=0.0)

    monkeypatch.setattr(transformer_stage, "transformer_preset", small)


def write_slices(folder: Path, images: Sequence[tuple[str, str, FloatArray]]) -> Path:
    """Slices ``(patient, data set label, image)``; patients whose name begins with "test" are held out."""
    with ShardWriter(folder, 16) as writer:
        for patient, label, image in images:
            writer.add(encode(image)[None], [invented_facts(patient, dataset=label)])
        writer.finish({name: "test" if name.startswith("test") else "train" for name in writer.strata})
    return folder


def blocks(rng: np.random.Generator, low: float, high: float) -> FloatArray:
    """4×4 blocks of random brightness, ``(16, 16)``."""
    return np.kron(rng.uniform(low, high, (4, 4)), np.ones((4, 4))).astype(np.float32)


def test_eight_slices_are_memorised_and_made_again(make_config: MakeConfig, tmp_path: Path, console: Console) -> None:
    """A mask that leaks, tokens out of place, or sampling unlike training: each would leave a loss or a wrong token."""
    rng = np.random.default_rng(0)
    images = [(f"train-{i}", f"label {i}", blocks(rng, -1, 1)) for i in range(8)]
    data = write_slices(tmp_path / "eight", [*images, ("test", "label 0", images[0][2])])
    config = make_config(
        stage="transformer",
        data=data,
        factors=("dataset",),
        augment=False,
        steps=150,
        batch_size=16,
        learning_rate=3e-3,
        warmup=5,
        ema=0.9,
        validate_every=150,
    )
    transformer, labels = load_transformer(run(config, console=console))
    figures = read_log(config.out / "log.csv")
    # Of images whose label was dropped, the coarsest token can only be guessed.
    assert figures[Metric("loss")][-1][1] < 0.1
    assert figures[Metric("loss", "held_out")][-1][1] < 0.02  # the same image, its label not dropped
    assert figures[Metric("accuracy", scale=3)][-1][1] > 0.95  # while learning, with paths and labels dropped
    assert config.tokenizer is not None
    tokenizer, train = load_tokenizer(config.tokenizer), SliceDataset(data, "train")
    asked = torch.tensor([labels.encode(Condition(dataset=one.dataset)) for one in train.conditions], dtype=torch.int64)
    with torch.no_grad():
        expected = tokenizer.encode(torch.from_numpy(train.batch(range(8))))
        made = sample(
            transformer,
            tokenizer.quantizer,
            asked,
            Sampling(guidance=0.0, top_k=1),
            generator=torch.Generator().manual_seed(0),
        )
    assert all(torch.equal(ours, its) for ours, its in zip(made, expected, strict=True))


def test_shuffled_labels_do_not_help(make_config: MakeConfig, tmp_path: Path, console: Console) -> None:
    """An image that reached the network by another way than its labels and coarser scales would look like learning."""
    rng = np.random.default_rng(0)
    bright = rng.random(64) < 0.5
    images = [blocks(rng, 0.4, 0.8) if light else blocks(rng, -0.8, -0.4) for light in bright]
    patients = [f"{'test' if i >= 48 else 'train'}-{i}" for i in range(64)]
    told = {"true": bright, "shuffled": rng.permutation(bright), "none": np.zeros(64, dtype=bool)}
    loss = {}
    for name, lights in told.items():
        labels = ["bright" if light else "dark" for light in lights]
        config = make_config(
            stage="transformer",
            data=write_slices(tmp_path / name, list(zip(patients, labels, images, strict=True))),
            out=tmp_path / f"run {name}",
            factors=("dataset",),
            augment=False,
            steps=60,
            batch_size=16,
            learning_rate=3e-3,
            ema=0.9,
            validate_slices=16,
            validate_every=60,
        )
        run(config, console=console)
        loss[name] = read_log(config.out / "log.csv")[Metric("loss", "held_out", 0)][-1][1]
    assert loss["true"] < loss["none"] - 0.2, loss
    assert loss["shuffled"] > loss["none"] - 0.1, loss
