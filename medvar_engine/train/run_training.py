"""Runs a training from its configuration: opens data, device and stage, and calls the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.models.weight_files import RESOLUTION, tokenizer_kind
from medvar_engine.storage import exclusive_lock
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import Processes, join
from medvar_engine.train.loop import train
from medvar_engine.train.out_of_memory import explaining_lack_of_memory
from medvar_engine.train.stage import Stage
from medvar_engine.train.stages.preview_stage import PreviewStage
from medvar_engine.train.stages.refiner_stage import RefinerStage
from medvar_engine.train.stages.tokenizer_stage import TokenizerStage
from medvar_engine.train.stages.transformer_stage import TransformerStage


def run(config: TrainConfig, *, resume: bool = False, console: Console | None = None) -> Path:
    """Train on prepared slices and return the path of the finished model. Can be started by ``torchrun``.

    Raises `MedvarError` for wrong settings or data, and `StoppedEarly` after a stop signal.
    """
    console = console or Console(stderr=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    if not resume and (config.out / "checkpoints").is_dir() and any((config.out / "checkpoints").iterdir()):
        raise MedvarError(
            f"{config.out} holds the checkpoints of another run. Use --resume, or choose another out folder."
        )
    train_set, held_out = SliceDataset(config.data, split="train"), SliceDataset(config.data, split="test")
    with (
        join(config.device) as processes,
        _alone(config.out, processes),
        explaining_lack_of_memory(config, processes.device),
    ):
        if not processes.is_main:
            console = Console(quiet=True)
        if config.shard and (config.stage != "transformer" or processes.size == 1):
            raise MedvarError("shard=true needs stage=transformer and several processes, started by torchrun.")
        if config.shard and config.lora_rank:
            raise MedvarError(
                "shard=true is not supported with lora_rank: low-rank changes are small enough for copies. Set "
                "shard=false."
            )
        if config.shard and config.optimizer == "muon":
            raise MedvarError(
                "shard=true distributes matrices over processes, but Muon needs them whole. Set optimizer=adamw."
            )
        stage: Stage = _STAGES[config.stage](config, train_set, held_out, processes)
        parameters = sum(p.numel() for p in stage.model.parameters())
        where = f" in {processes.size} processes" if processes.size > 1 else ""
        console.print(
            f"Training the {config.stage} ({parameters / 1e6:.1f} M parameters) on {processes.device}{where}: "
            f"{len(train_set)} slices, validated on {len(held_out)} of other patients."
        )
        return train(config, stage, processes, resume=resume, console=console)


def _tokenizer_stage(
    config: TrainConfig, train_set: SliceDataset, held_out: SliceDataset, processes: Processes
) -> Stage:
    """The stage for the kind of tokenizer that the run continues, or that the preset names."""
    trained = config.tokenizer is not None and tokenizer_kind(config.tokenizer) == RESOLUTION
    if trained or (config.tokenizer is None and config.preset == "resolution"):
        return RefinerStage(config, train_set, held_out, processes)
    if config.draw_with is not None:
        raise MedvarError("draw_with needs a tokenizer of resolutions. Set preset=resolution, or leave it out.")
    return TokenizerStage(config, train_set, held_out, processes)


_STAGES: Mapping[str, Callable[[TrainConfig, SliceDataset, SliceDataset, Processes], Stage]] = {
    "tokenizer": _tokenizer_stage,
    "transformer": TransformerStage,
    "preview": PreviewStage,
}


@contextmanager
def _alone(out: Path, processes: Processes) -> Iterator[None]:
    """Lock the folder of the run, and turn write errors into a `MedvarError` with advice."""
    if not processes.is_main:
        yield
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(
            out / ".lock", f"Another run is writing to {out}. Wait until it has ended, or choose another out folder."
        ):
            yield
    except OSError as error:
        raise MedvarError(f"The run stopped: {error}. Correct this and continue with --resume.") from error
