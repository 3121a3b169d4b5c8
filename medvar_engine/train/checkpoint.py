"""Checkpoints: a folder a step, written whole or not at all; the newest sound one is resumed from."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medvar_engine.errors import MedvarError
from medvar_engine.storage import replace_folder, sha256
from medvar_engine.train.distributed.processes import World

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """What the manifest of a checkpoint says."""

    path: Path
    step: int
    values: Mapping[str, Any]
    loss: float | None  # on held-out patients; None when they were not looked at in this step


def save_checkpoint(
    folder: Path,
    step: int,
    write: Callable[[Path], None],
    values: Mapping[str, Any],
    loss: float | None,
    *,
    keep: int,
    world: World,
) -> Path:
    """Write ``folder/step-XXXXXXXX`` and drop all but the newest ``keep`` and the one of the lowest loss.

    ``write`` puts a process's tensors into the folder that it is given; every process calls this.
    """
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        if world.leads:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        world.wait()
        write(temporary)
        world.wait()
        if world.leads:
            hashes = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
            manifest = {"step": step, "loss": loss, "values": dict(values), "sha256": hashes}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            replace_folder(temporary, target)
    except OSError as error:
        raise MedvarError(
            f"Cannot write the checkpoint {target}: {error.strerror or error}. Earlier checkpoints are untouched; "
            "free some room and resume with --resume."
        ) from error
    finally:
        if world.leads:
            shutil.rmtree(temporary, ignore_errors=True)
    if world.leads:
        _drop_old(folder, target, keep)
    world.wait()  # nobody goes on, or ends, before it is there
    return target


def _drop_old(folder: Path, newest: Path, keep: int) -> None:
    # Newer ones are damaged: otherwise the run would have gone on from them. They do not count.
    there = [path for path in _folders(folder) if path.name <= newest.name]
    best = _best(there)
    for old in there[keep:]:
        if old != best:
            shutil.rmtree(old, ignore_errors=True)


def best_checkpoint(folder: Path, world: World, tell: Callable[[str], None]) -> Checkpoint | None:
    """The sound checkpoint of the lowest loss on held-out patients; None when none knows its loss.

    Damaged ones are skipped and told of. All processes get the same.
    """
    known = [path for path in _folders(folder) if _loss(path) < math.inf] if world.leads else []
    return _first_sound(folder, sorted(known, key=_loss), world, tell)


def remove_unfinished(folder: Path) -> None:
    """Remove what runs that were killed while writing have left. Only for the one that holds the run's folder."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(folder: Path, world: World, tell: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint whose hashes agree; damaged ones are skipped and told of. All processes get the same."""
    return _first_sound(folder, _folders(folder), world, tell)


def _first_sound(folder: Path, order: Sequence[Path], world: World, tell: Callable[[str], None]) -> Checkpoint | None:
    step = -1
    for path in order if world.leads else ():
        try:
            step = _checked(path).step
            break
        except Exception as error:  # a damaged file fails in many ways, and an earlier one may be sound
            tell(f"Skipped the damaged checkpoint {path}: {error}")
    step = int(world.take_from_leader(torch.tensor(step, device=world.device)))
    return None if step < 0 else read_checkpoint(folder / f"step-{step:08d}")


def read_checkpoint(path: Path) -> Checkpoint:
    """What the manifest says, which is not compared with the files."""
    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    return Checkpoint(path, manifest["step"], manifest["values"], manifest["loss"])


def _checked(path: Path) -> Checkpoint:
    """`read_checkpoint`; raises `MedvarError` when a file is not what it was."""
    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    step, values, loss = manifest["step"], manifest["values"], manifest["loss"]
    if type(step) is not int or path.name != f"step-{step:08d}" or not isinstance(values, dict):
        raise MedvarError(f"its {_MANIFEST} says that it is step {step!r}, or does not say of which run")
    if loss is not None and type(loss) not in (int, float):
        raise MedvarError(f"its {_MANIFEST} says that its loss is {loss!r}")
    if not manifest["sha256"]:
        raise MedvarError(f"its {_MANIFEST} names no files")
    for name, expected in manifest["sha256"].items():
        if sha256(path / name) != expected:
            raise MedvarError(f"{name} has changed since it was written")
    return read_checkpoint(path)


def _best(paths: list[Path]) -> Path | None:
    best = min(paths, key=_loss, default=None)
    return None if best is None or _loss(best) == math.inf else best


def _loss(path: Path) -> float:
    """A checkpoint's loss on held-out patients; infinite when it is not known or not to be read."""
    try:
        loss = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))["loss"]
        return math.inf if loss is None or math.isnan(loss) else float(loss)
    except Exception:  # a damaged file fails in many ways
        return math.inf


def _folders(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)
