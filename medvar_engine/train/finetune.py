"""Fine-tuning of a trained transformer on a user's own slices, with settings that suit their number."""

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
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.out_of_memory import explaining_lack_of_memory
from medvar_engine.train.run_training import run
from medvar_engine.train.stages.transformer_stage import TransformerStage

RANK = 8
FEW_SLICES = 50  # with fewer slices, a model memorises single images
FEW_PATIENTS = 2  # held-out patients; with fewer, early stopping depends on a single patient


@dataclass(frozen=True, slots=True)
class DataAmount:
    """The numbers of slices and patients for training and for validation."""

    slices: int
    patients: int
    held_out_slices: int
    held_out_patients: int

    @classmethod
    def of(cls, data: Path) -> DataAmount:
        """Count prepared slices. Raises `MedvarError` when there are no held-out patients."""
        train = SliceDataset(data, "train")
        patients = list(train.manifest.split.values())
        if "test" not in patients:
            raise MedvarError(
                f"{data} has no held-out patients, which are needed to decide when to stop. Prepare the scans "
                "again with `medvar prepare … --holdout PATIENT`."
            )
        return cls(len(train), patients.count("train"), len(SliceDataset(data, "test")), patients.count("test"))

    @property
    def warnings(self) -> list[str]:
        """Warnings about the reliability of the result."""
        warnings = []
        if self.slices < FEW_SLICES:
            warnings.append(
                f"{self.slices} slices are few: the model will probably repeat them. Use at least {FEW_SLICES}."
            )
        if self.held_out_patients < FEW_PATIENTS:
            warnings.append(
                "Only one patient is held out, so the stopping time and the measured quality depend on that "
                "patient alone."
            )
        return warnings


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

    Raises `MedvarError` when the slices do not fit the models, or when there are no held-out patients.
    """
    amount = DataAmount.of(data)
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


def describe_plan(config: TrainConfig) -> str:
    """A description of the run."""
    amount = DataAmount.of(config.data)
    what = f"low-rank changes (rank {config.lora_rank})" if config.lora_rank else "all weights"
    known = load_transformer(_init(config))[1]
    conditions = SliceDataset(config.data, "train").conditions.distinct
    new = [
        f"{name} {label}"
        for name in NAMED
        if name in config.factors
        for label in getattr(LabelSpace.of(conditions), name)
        if label not in getattr(known, name)
    ]
    return (
        f"{amount.slices} training slices of {amount.patients} patients, {amount.held_out_slices} slices of "
        f"{amount.held_out_patients} held-out patients.\n"
        f"At most {config.steps} steps with batches of {config.batch_size}: every slice is used about "
        f"{config.steps * config.batch_size / amount.slices:.0f} times, in {config.variants} variants. "
        f"Trained: {what}.\nNew condition names: {', '.join(new) or 'none'}."
    )


@dataclass(frozen=True, slots=True)
class Finetuned:
    """The result of fine-tuning."""

    transformer: Path
    before: float  # loss of the original model on held-out patients, in nats per token
    after: float
    minutes: float  # training time, summed over all parts of a run that was stopped and resumed


def finetune(config: TrainConfig, *, resume: bool = False, console: Console | None = None) -> Finetuned:
    """Run the fine-tuning. ``out/samples/before`` gets samples of the original model."""
    before = _held_out_loss(config, config.out / "samples" / "before")
    path = run(config, resume=resume, console=console)
    after = _held_out_loss(replace(config, init=path, lora_rank=0))
    last = newest_checkpoint(config.out / "checkpoints", Processes(torch.device("cpu")), lambda _: None)
    seconds = last.values.get("seconds_so_far", 0.0) if last else 0.0
    return Finetuned(path, before, after, seconds / 60)


@torch.no_grad()
def _held_out_loss(config: TrainConfig, samples: Path | None = None) -> float:
    """The held-out loss of the transformer that the run starts from; samples are written to ``samples``."""
    train, held_out = SliceDataset(config.data, "train"), SliceDataset(config.data, "test")
    device = pick_device(config.device)
    with explaining_lack_of_memory(config, device):
        stage = TransformerStage(config, train, held_out, Processes(device))
        return stage.held_out_loss(stage.validate(stage.model.eval(), samples))


def _init(config: TrainConfig) -> Path:
    if config.init is None:
        raise MedvarError("Set init=PATH to the transformer to fine-tune.")
    return config.init


def _check_modalities(train: SliceDataset, known: LabelSpace, transformer: Path, rank: int) -> None:
    new = sorted({str(condition.modality) for condition in train.conditions.distinct} - set(known.modality))
    if rank and known.modality and new:
        raise MedvarError(
            f"{transformer} was trained on {', '.join(known.modality)}, but the slices in {train.folder} are "
            f"{', '.join(new)}. Low-rank changes cannot learn a new modality. Use --full, with some thousand slices."
        )
