"""Assigns GPUs to worker processes in turn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from multiprocessing import current_process, parent_process

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def take_gpu(device: str) -> None:
    """In a worker process of a pool, make only one GPU visible, according to the worker's number.

    It must be called before the CUDA runtime starts in the process, which reads the variable once. Other processes are
    not changed: on a cluster, the GPU of each worker is set by the same variable when it is started.
    """
    if device == "cpu" or parent_process() is None:
        return
    number = worker_number(current_process().name)
    gpus = visible_gpus()
    if number is not None and len(gpus) > 1:
        os.environ[_VISIBLE] = gpus[number % len(gpus)]


def worker_number(name: str) -> int | None:
    """The number in the name of a pool's process, ``LokyProcess-3``; None for another name."""
    last = name.rpartition("-")[2].rpartition(":")[2]
    return int(last) if name.startswith("Loky") and last.isdecimal() else None


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    if (said := os.environ.get(_VISIBLE)) is not None:
        return [name.strip() for name in said.split(",") if name.strip()]
    tool = shutil.which("nvidia-smi")
    if tool is None or sys.platform == "darwin":
        return []
    try:
        listed = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
