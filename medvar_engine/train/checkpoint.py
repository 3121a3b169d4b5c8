"""Checkpoints: a folder a step, written whole or not at all; the newest sound one is resumed from."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medvar_engine.data.shards.files import sha256
from medvar_engine.errors import MedvarError
from medvar_engine.models.files import read_tensors, write_tensors

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on: named groups of tensors and a few plain values."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[str, Any]
    loss: float | None = None  # on held-out patients; None when they were not looked at in this step


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write ``folder/step-XXXXXXXX`` and drop all but the newest ``keep`` and the one of the lowest loss."""
    target = folder / f"step-{checkpoint.step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, tensors in checkpoint.tensors.items():
            write_tensors(temporary / f"{name}.safetensors", tensors)
        hashes = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        manifest = {
            "step": checkpoint.step,
            "loss": checkpoint.loss,
            "values": dict(checkpoint.values),
            "sha256": hashes,
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _flush(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        _flush(folder)
    except OSError as error:
        raise MedvarError(
            f"Cannot write the checkpoint {target}: {error.strerror or error}. Earlier checkpoints are untouched; "
            "free some room and resume with --resume."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    # Newer ones are damaged: otherwise the run would have gone on from them. They do not count.
    there = [path for path in _folders(folder) if path.name <= target.name]
    best = _best(there)
    for old in there[keep:]:
        if old != best:
            shutil.rmtree(old, ignore_errors=True)
    return target


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the lowest loss on held-out patients; None when none knows its loss."""
    return _best(_folders(folder))


def remove_unfinished(folder: Path) -> None:
    """Remove what runs that were killed while writing have left. Only for the one that holds the run's folder."""
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(folder: Path, tell: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint whose hashes agree; damaged ones are skipped and told of."""
    for path in _folders(folder):
        try:
            return _load(path)
        except (MedvarError, OSError, ValueError, KeyError, TypeError) as error:
            tell(f"Skipped the damaged checkpoint {path}: {error}")
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments under flat names ``INDEX.NAME``."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`; learning rates stay those of ``optimizer``."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _load(path: Path) -> Checkpoint:
    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    tensors = {}
    for name, expected in manifest["sha256"].items():
        if sha256(path / name) != expected:
            raise MedvarError(f"{name} has changed since it was written")
        tensors[Path(name).stem] = read_tensors(path / name)[0]
    return Checkpoint(manifest["step"], tensors, manifest["values"], manifest["loss"])


def _best(paths: list[Path]) -> Path | None:
    best = min(paths, key=_loss, default=None)
    return None if best is None or _loss(best) == math.inf else best


def _loss(path: Path) -> float:
    """A checkpoint's loss on held-out patients; infinite when it is not known or not to be read."""
    try:
        loss = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))["loss"]
        return math.inf if loss is None or math.isnan(loss) else float(loss)
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf


def _folders(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def _flush(folder: Path) -> None:
    """Force a folder's files and names to disk."""
    for path in (*folder.iterdir(), folder):
        if path.is_dir() and path != folder:
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
