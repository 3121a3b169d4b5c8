"""Which GPU a worker process uses: worker after worker, each takes the next one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from multiprocessing import current_process, parent_process

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def take_gpu(device: str) -> None:
    """In a worker process of a pool: leave one GPU visible, by the worker's number. Elsewhere nothing changes.

    Called before the CUDA runtime starts in the process, which reads the variable once. On a cluster whoever starts
    the workers gives each its GPU, with the same variable.
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
