"""Memory that runs out in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import Tensor

from medvar_engine.errors import MedvarError
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run
from medvar_engine.train.stage import Batch, Metrics
from medvar_engine.train.stages.transformer_stage import TransformerStage

MakeConfig = Callable[..., TrainConfig]


def no_room_on_the_card() -> Exception:
    """What CUDA's allocator raises."""
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nAnd a page of advice")


def no_room_in_the_machine() -> Exception:
    """What the CPU's allocator raises, for more than any machine has."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50)
    return raised.value


@pytest.mark.parametrize("error", [no_room_on_the_card, no_room_in_the_machine, MemoryError])
def test_the_message_gives_advice(
    make_config: MakeConfig, console: Console, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
) -> None:
    """The commonest end of a training run would be a traceback, and cost what was trained until then."""
    loss, problem = TransformerStage.loss, error()

    def large(self: TransformerStage, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        if step == 4:
            raise problem
        return loss(self, batch, step)

    config = make_config(stage="transformer", coarse_slices=6)
    with monkeypatch.context() as patch:
        patch.setattr(TransformerStage, "loss", large)
        with pytest.raises(MedvarError, match="Out of memory on cpu") as told:
            run(config, console=console)
        for advice in (
            "coarse_slices below 6",
            "recompute=true",
            "--resume",
            "accumulate=2",
            "batch_size below 2",
            "--dry-run",
        ):
            assert advice in str(told.value)
        assert "page of advice" not in str(told.value)
    assert [path.name for path in (config.out / "checkpoints").iterdir()] == ["step-00000003"]
    assert run(replace(config, recompute=True), resume=True, console=console).is_file()  # as advised; the lock is free


def test_other_errors_stay_what_they_are(
    make_config: MakeConfig, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the code would be reported as too little memory, and be looked for there."""

    def broken(*_: object) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(TransformerStage, "loss", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(make_config(stage="transformer"), console=console)
