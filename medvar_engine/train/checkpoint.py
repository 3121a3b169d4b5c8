"""Checkpoints: one folder per step, written atomically. A run resumes from the newest undamaged one."""

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
from medvar_engine.storage import is_irregular, replace_folder, sha256
from medvar_engine.train.distributed.processes import Processes

_MANIFEST = "manifest.json"
_MOST_BYTES = 16 * 2**20  # size of a manifest; those of large runs have some hundred kilobytes


@dataclass(frozen=True)
class Checkpoint:
    """The manifest of a checkpoint."""

    path: Path
    step: int
    values: Mapping[str, Any]
    loss: float | None  # on held-out patients; None without a validation in this step


def save_checkpoint(
    folder: Path,
    step: int,
    write: Callable[[Path], None],
    values: Mapping[str, Any],
    loss: float | None,
    *,
    keep: int,
    processes: Processes,
) -> Path:
    """Write ``folder/step-XXXXXXXX``; only the newest ``keep`` checkpoints and the one with the lowest loss stay.

    ``write`` writes the tensors of a process into the folder that is passed to it. Every process calls this function.
    Raises `MedvarError` when the checkpoint cannot be written.
    """
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        if processes.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        processes.wait()
        write(temporary)
        processes.wait()
        if processes.is_main:
            hashes = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
            manifest = {"step": step, "loss": loss, "values": dict(values), "sha256": hashes}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            replace_folder(temporary, target)
    except OSError as error:
        raise MedvarError(
            f"Cannot write the checkpoint {target}: {error.strerror or error}. Earlier checkpoints are untouched; "
            "free some disk space and resume with --resume."
        ) from error
    finally:
        if processes.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
    if processes.is_main:
        _drop_old(folder, target, keep)
    processes.wait()  # no process continues or ends before the checkpoint exists
    return target


def _drop_old(folder: Path, newest: Path, keep: int) -> None:
    # Newer checkpoints are damaged, or the run would have resumed from them. They are ignored.
    there = [path for path in _folders(folder) if path.name <= newest.name]
    best = _best(there)
    for old in there[keep:]:
        if old != best:
            shutil.rmtree(old, ignore_errors=True)


def best_checkpoint(folder: Path, processes: Processes, log: Callable[[str], None]) -> Checkpoint | None:
    """The undamaged checkpoint with the lowest loss on held-out patients; None when none has a loss.

    Damaged checkpoints are skipped with a message to ``log``. All processes get the same result.
    """
    known = [path for path in _folders(folder) if _loss(path) < math.inf] if processes.is_main else []
    return _first_sound(folder, sorted(known, key=_loss), processes, log)


def remove_unfinished(folder: Path) -> None:
    """Remove incomplete checkpoints of killed runs. Only the process that holds the lock of the run may call this."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(folder: Path, processes: Processes, log: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint with correct hashes; damaged ones are reported to ``log``. All processes get the same."""
    return _first_sound(folder, _folders(folder), processes, log)


def _first_sound(
    folder: Path, order: Sequence[Path], processes: Processes, log: Callable[[str], None]
) -> Checkpoint | None:
    step = -1
    for path in order if processes.is_main else ():
        try:
            step = _checked(path).step
            break
        except Exception as error:  # a damaged file can raise any exception, and an earlier checkpoint may be intact
            log(f"Skipped the damaged checkpoint {path}: {error}")
    step = int(processes.take_from_main(torch.tensor(step, device=processes.device)))
    return None if step < 0 else read_checkpoint(folder / f"step-{step:08d}")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the manifest of a checkpoint, without a check of its files. Raises `MedvarError` if it is invalid."""
    manifest = _manifest(path)
    return Checkpoint(path, manifest["step"], manifest["values"], manifest["loss"])


def _checked(path: Path) -> Checkpoint:
    """`read_checkpoint`, with a check of all hashes. Raises `MedvarError` when a file has changed."""
    manifest = _manifest(path)
    step, values, loss = manifest["step"], manifest["values"], manifest["loss"]
    if type(step) is not int or path.name != f"step-{step:08d}" or not isinstance(values, dict):
        raise MedvarError(f"its {_MANIFEST} has an invalid step {step!r}, or no settings of the run")
    if loss is not None and type(loss) not in (int, float):
        raise MedvarError(f"its {_MANIFEST} has an invalid loss {loss!r}")
    if not manifest["sha256"]:
        raise MedvarError(f"its {_MANIFEST} lists no files")
    for name, expected in manifest["sha256"].items():
        if Path(name).name != name:
            raise MedvarError(f"its {_MANIFEST} lists a file of another folder, {name!r}")
        if sha256(path / name) != expected:
            raise MedvarError(f"{name} has changed since it was written")
    return read_checkpoint(path)


def _best(paths: list[Path]) -> Path | None:
    best = min(paths, key=_loss, default=None)
    return None if best is None or _loss(best) == math.inf else best


def _loss(path: Path) -> float:
    """A checkpoint's loss on held-out patients; infinite if it is unknown or unreadable."""
    try:
        loss = _manifest(path)["loss"]
        return math.inf if loss is None or math.isnan(loss) else float(loss)
    except Exception:  # a damaged file can raise any exception
        return math.inf


def _manifest(path: Path) -> Any:
    """The content of a manifest. Unlike other JSON it may hold NaN, as the loss of a run that diverged."""
    file = path / _MANIFEST
    if is_irregular(file):
        raise MedvarError(f"its {_MANIFEST} is not a regular file")
    if file.stat().st_size > _MOST_BYTES:
        raise MedvarError(f"its {_MANIFEST} is larger than {_MOST_BYTES} bytes")
    return json.loads(file.read_text(encoding="utf-8"))


def _folders(folder: Path) -> list[Path]:
    """The folders of checkpoints, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)
