"""Fine-tuning: a trained transformer learns from a user's own slices, with settings that suit their number."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from medvar_engine.conditions import FACTORS, NAMED, LabelSpace
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.models.weight_files import load_tokenizer, load_transformer
from medvar_engine.train.batches import check_size
from medvar_engine.train.checkpoint import newest_checkpoint
from medvar_engine.train.config import TrainConfig, load_config
from medvar_engine.train.device import pick_device
from medvar_engine.train.distributed.processes import World
from medvar_engine.train.out_of_memory import memory_enough
from medvar_engine.train.run_training import run
from medvar_engine.train.stages.transformer_stage import TransformerStage

RANK = 8
FEW_SLICES = 50  # below this a model learns single images
FEW_PEOPLE = 2  # held out; below this the figure that decides when to stop is one person's


@dataclass(frozen=True, slots=True)
class Amount:
    """How much there is to learn from, and to judge by."""

    slices: int
    people: int
    held_out_slices: int
    held_out_people: int

    @classmethod
    def of(cls, data: Path) -> Amount:
        """Of prepared slices. Raises `MedvarError` when nobody is held out."""
        train = SliceDataset(data, "train")
        people = list(train.manifest.split.values())
        if "test" not in people:
            raise MedvarError(
                f"{data} holds out nobody, so that there is no telling when to stop. Prepare the scans again with "
                "`medvar prepare … --holdout PERSON`."
            )
        return cls(len(train), people.count("train"), len(SliceDataset(data, "test")), people.count("test"))

    @property
    def warnings(self) -> list[str]:
        """What a person should know before trusting the outcome."""
        told = []
        if self.slices < FEW_SLICES:
            told.append(f"{self.slices} slices are few: expect a model that repeats them. {FEW_SLICES} are the least.")
        if self.held_out_people < FEW_PEOPLE:
            told.append(
                "Only one person is held out: when to stop, and how good it is, is decided by that person alone."
            )
        return told


def settings(
    tokenizer: Path,
    transformer: Path,
    data: Path,
    out: Path,
    *,
    rank: int = RANK,
    steps: int | None = None,
    overrides: Iterable[str] = (),
) -> TrainConfig:
    """The configuration of a fine-tuning run; ``rank`` 0 trains all weights. ``overrides`` are ``name=value``.

    Raises `MedvarError` when the slices do not fit the models, or hold out nobody.
    """
    amount = Amount.of(data)
    train = SliceDataset(data, "train")
    check_size(train, load_tokenizer(tokenizer).config.image_size)
    known = load_transformer(transformer)[1]
    _check_modalities(train, known, transformer, rank)
    steps = steps or min(4000, max(200, 2 * amount.slices))
    values: dict[str, object] = {
        "stage": "transformer",
        "data": str(data),
        "out": str(out),
        "tokenizer": str(tokenizer),
        "init": str(transformer),
        "lora_rank": rank,
        "factors": [name for name in FACTORS if name in known.factors or name in ("modality", "region", "plane")],
        "steps": steps,
        "batch_size": 16,
        "learning_rate": 1e-3 if rank else 1e-4,
        "warmup": max(1, steps // 20),
        "weight_decay": 0.05,
        "dropout": 0.1 if amount.slices < 1000 else 0.05,
        "variants": 8 if amount.slices < 1000 else 4,
        "ema": 0.99,
        "validate_every": max(1, steps // 16),
        "validate_slices": 128,
        "log_every": max(1, steps // 40),
        "patience": 4,
    }
    return load_config(None, [*(f"{name}={json.dumps(value)}" for name, value in values.items()), *overrides])


def told(config: TrainConfig) -> str:
    """The plan, for a person."""
    amount = Amount.of(config.data)
    what = f"changes of rank {config.lora_rank}" if config.lora_rank else "all weights"
    known = load_transformer(_init(config))[1]
    kinds = SliceDataset(config.data, "train").conditions.kinds
    new = [
        f"{name} {label}"
        for name in NAMED
        if name in config.factors
        for label in getattr(LabelSpace.of(kinds), name)
        if label not in getattr(known, name)
    ]
    return (
        f"{amount.slices} slices of {amount.people} people to learn from, {amount.held_out_slices} of "
        f"{amount.held_out_people} others to judge by.\n"
        f"At most {config.steps} steps of {config.batch_size}: every slice is seen about "
        f"{config.steps * config.batch_size / amount.slices:.0f} times, in {config.variants} variants. "
        f"{what.capitalize()} learn.\n"
        f"Names that are new to the model: {', '.join(new) or 'none'}."
    )


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What came out."""

    transformer: Path
    before: float  # nats a token on people held out, of the model as it was
    after: float
    minutes: float  # of training, in all the parts that a run had when it was stopped and resumed


def finetune(config: TrainConfig, *, resume: bool = False, console: Console | None = None) -> Finetuned:
    """Run it. ``out/samples/before`` are samples of the model as it was, beside those on the way."""
    before = _held_out_loss(config, config.out / "samples" / "before")
    path = run(config, resume=resume, console=console)
    after = _held_out_loss(replace(config, init=path, lora_rank=0))
    last = newest_checkpoint(config.out / "checkpoints", World(torch.device("cpu")), lambda _: None)
    seconds = last.values.get("seconds_so_far", 0.0) if last else 0.0
    return Finetuned(path, before, after, seconds / 60)


@torch.no_grad()
def _held_out_loss(config: TrainConfig, samples: Path | None = None) -> float:
    """That of the transformer that the run would start from; its samples go to ``samples``."""
    train, held_out = SliceDataset(config.data, "train"), SliceDataset(config.data, "test")
    device = pick_device(config.device)
    with memory_enough(config, device):
        stage = TransformerStage(config, train, held_out, World(device))
        return stage.held_out_loss(stage.validate(stage.model.eval(), samples))


def _init(config: TrainConfig) -> Path:
    if config.init is None:
        raise MedvarError("init=PATH is the transformer to fine-tune; it cannot be left out.")
    return config.init


def _check_modalities(train: SliceDataset, known: LabelSpace, transformer: Path, rank: int) -> None:
    new = sorted({str(kind.modality) for kind in train.conditions.kinds} - set(known.modality))
    if rank and known.modality and new:
        raise MedvarError(
            f"{transformer} knows {', '.join(known.modality)}, but the slices in {train.folder} are {', '.join(new)}. "
            "Low-rank changes do not teach another modality; give --full, and some thousand slices."
        )
