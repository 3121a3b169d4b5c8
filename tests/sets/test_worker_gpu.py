"""Several GPUs: which worker uses which. None is needed for the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medvar_engine.parallel import run
from medvar_engine.sets.worker_gpu import take_gpu, visible_gpus, worker_number


def taken(device: str) -> tuple[str | None, int]:
    import time

    from medvar_engine.sets.worker_gpu import take_gpu

    take_gpu(device)
    time.sleep(0.3)  # so that the other worker gets units, too
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


def test_workers_share_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight workers would crowd on one GPU, and seven stand idle."""
    import sys

    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    found = {outcome for _, outcome in run(taken, ["cuda"] * 6, workers=2)}
    assert {gpu for gpu, _ in found} == {"3", "GPU-abc"}
    assert len(found) == 2  # a worker keeps its GPU
    for _, (gpu, _) in run(taken, ["cpu"] * 2, workers=2):
        assert gpu == "3,GPU-abc"


def test_the_main_process_keeps_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that makes a set would lose its GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    take_gpu("cuda")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_visible_gpus_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of two GPUs would be taken for one of none; or a machine without the driver's tool fail."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    if os.name == "posix":
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\necho 'GPU 0: Some (UUID: GPU-a)'\necho 'GPU 1: Some (UUID: GPU-b)'\n")
        tool.chmod(0o755)
        assert visible_gpus() == ["0", "1"]
        tool.write_text("#!/bin/sh\nexit 9\n")
        assert visible_gpus() == []


@pytest.mark.parametrize(("name", "number"), [("LokyProcess-12", 12), ("MainProcess", None), ("Loky", None)])
def test_a_workers_number(name: str, number: int | None) -> None:
    """All workers would take the first GPU."""
    assert worker_number(name) == number
