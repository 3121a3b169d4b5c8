from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from medvar_engine.errors import MedvarError
from medvar_engine.models.weight_files import read_tensors, write_tensors
from medvar_engine.storage import sha256
from medvar_engine.train.checkpoint import (
    Checkpoint,
    best_checkpoint,
    newest_checkpoint,
    remove_unfinished,
    save_checkpoint,
)
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.optimise import optimizer_tensors, restore_optimizer

HERE = Processes(torch.device("cpu"))


def save(folder: Path, step: int, loss: float | None = None, *, keep: int, weight: float | None = None) -> Path:
    def write(into: Path) -> None:
        write_tensors(into / "model.safetensors", {"w": torch.full((3, 2), step if weight is None else weight)})

    return save_checkpoint(folder, step, write, {"seed": 1}, loss, keep=keep, processes=HERE)


def newest(folder: Path, log: Callable[[str], object]) -> Checkpoint | None:
    return newest_checkpoint(folder, HERE, log)


def weight_of(found: Checkpoint) -> torch.Tensor:
    return read_tensors(found.path / "model.safetensors")[0]["w"]


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_found_again(tmp_path: Path) -> None:
    """A resumed run would start from the wrong step, or from nothing."""
    for step in (3, 12, 100):
        save(tmp_path, step, keep=2)
    assert steps(tmp_path) == ["step-00000012", "step-00000100"]
    found = newest(tmp_path, pytest.fail)
    assert found is not None
    assert (found.step, found.values["seed"]) == (100, 1)
    assert torch.equal(weight_of(found), torch.full((3, 2), 100.0))
    assert newest(tmp_path / "none", pytest.fail) is None


@pytest.mark.parametrize(
    "damage",
    [
        *("flip", "cut", "no tensors", "no manifest", "bad manifest", "other manifest", "deep manifest"),
        *("manifest of a list of files", "manifest without files", "manifest of another step", "manifest of a text"),
        *("manifest of no run", "manifest of an odd loss", "manifest of a file elsewhere"),
        *("huge manifest", "manifest that is a pipe", "tensors that are a pipe"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_and_reported(tmp_path: Path, damage: str) -> None:
    """One bad sector would end a week's run, or go on from garbage."""
    save(tmp_path, 1, keep=2)
    folder = save(tmp_path, 2, keep=2)
    tensors, manifest = folder / "model.safetensors", folder / "manifest.json"
    content = bytearray(tensors.read_bytes())
    match damage:
        case "flip":
            content[-1] ^= 1
            tensors.write_bytes(content)
        case "cut":
            tensors.write_bytes(content[:-3])
        case "no tensors":
            tensors.unlink()
        case "no manifest":
            manifest.unlink()
        case "bad manifest":
            manifest.write_text("{")
        case "other manifest":
            manifest.write_text("[]")
        case "deep manifest":
            manifest.write_text("[" * 100_000)
        case "manifest of a list of files":
            manifest.write_text('{"step": 2, "values": {}, "loss": null, "sha256": ["a"]}')
        case "manifest without files":
            manifest.write_text('{"step": 2, "values": {}, "loss": null, "sha256": {}}')
        case "manifest of a file elsewhere":
            elsewhere = {"../step-00000001/model.safetensors": sha256(tmp_path / "step-00000001/model.safetensors")}
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": elsewhere}))
        case "huge manifest":
            with manifest.open("ab") as file:
                file.truncate(2**40)
        case "manifest that is a pipe" | "tensors that are a pipe":
            pipe = manifest if damage.startswith("manifest") else tensors
            pipe.unlink()
            os.mkfifo(pipe)
        case "manifest of another step" | "manifest of a text" | "manifest of no run" | "manifest of an odd loss":
            odd = {"another step": {"step": 7}, "a text": {"step": "2"}, "no run": {"values": None}}
            changed = odd.get(damage.removeprefix("manifest of "), {"loss": "low"})
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changed))
    told: list[str] = []
    found = newest(tmp_path, told.append)
    assert found is not None
    assert found.step == 1
    assert len(told) == 1
    assert "step-00000002" in told[0]


def test_a_full_disk_keeps_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run could not be resumed after room was made."""
    save(tmp_path, 1, keep=1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MedvarError, match=r"No space left.*--resume"):
            save(tmp_path, 2, keep=1)
    assert steps(tmp_path) == ["step-00000001"]
    save(tmp_path, 2, keep=1)
    assert steps(tmp_path) == ["step-00000002"]


def test_a_run_that_begins_again_is_not_lost_to_damaged_ones(tmp_path: Path) -> None:
    """After a damaged disk, each new checkpoint would be dropped at once, for the damaged ones bear higher numbers."""
    for step in (50, 60):
        (save(tmp_path, step, keep=2) / "manifest.json").unlink()
    save(tmp_path, 10, keep=2)
    found = newest(tmp_path, lambda _: None)
    assert found is not None
    assert found.step == 10


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    """Resuming from an older checkpoint would fail when it comes to one that exists."""
    save(tmp_path, 1, keep=2)
    save(tmp_path, 1, keep=2, weight=7.0)
    found = newest(tmp_path, pytest.fail)
    assert found is not None
    assert torch.equal(weight_of(found), torch.full((3, 2), 7.0))


def test_an_optimizer_continues_where_it_stopped(tmp_path: Path) -> None:
    """A resumed run would start with cold moments and jump."""
    torch.manual_seed(0)
    models = [nn.Linear(3, 2) for _ in range(2)]
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.1, fused=True) for m in models]

    def step(index: int) -> None:
        optimizers[index].zero_grad()
        models[index](torch.ones(1, 3)).square().sum().backward()
        optimizers[index].step()

    for _ in range(3):
        step(0)
    write_tensors(tmp_path / "optimizer.safetensors", optimizer_tensors(optimizers[0]))
    models[1].load_state_dict(models[0].state_dict())
    restore_optimizer(optimizers[1], read_tensors(tmp_path / "optimizer.safetensors")[0])
    for index in (0, 1):
        step(index)
    assert torch.equal(models[0].weight, models[1].weight)


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    """A run that begins to memorise would have thrown away the model that knew strangers best."""
    assert best_checkpoint(tmp_path, HERE, pytest.fail) is None
    for step, loss in ((1, 3.0), (2, 1.0), (3, None), (4, 2.0), (5, float("nan")), (6, None)):
        save(tmp_path, step, loss, keep=2)
    assert steps(tmp_path) == ["step-00000002", "step-00000005", "step-00000006"]
    best = best_checkpoint(tmp_path, HERE, pytest.fail)
    assert best is not None
    assert best.step == 2
    save(tmp_path, 7, 0.5, keep=2)
    assert steps(tmp_path) == ["step-00000006", "step-00000007"]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    """Every kill while a checkpoint is written would cost its size in disk for good."""
    kept = save(tmp_path, 1, keep=2)
    (tmp_path / ".step-00000002.123.tmp").mkdir()
    (tmp_path / ".step-00000002.123.tmp" / "model.safetensors").write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]
