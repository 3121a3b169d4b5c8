"""Turns out-of-memory errors of a run into a message with advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medvar_engine.errors import MedvarError
from medvar_engine.train.config import TrainConfig


@contextmanager
def explaining_lack_of_memory(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Raises `MedvarError` instead of the errors of torch or NumPy when ``device`` or the machine is out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _ran_out(error):
            raise
        less = f"accumulate={2 * config.accumulate}, or a batch_size below {config.batch_size}, in a new out folder"
        if config.stage == "transformer" and config.coarse_slices:
            less = f"a coarse_slices below {config.coarse_slices}, {less}"
        if config.stage == "transformer" and not config.recompute:
            less = f"recompute=true, which can be combined with --resume; {less}"
        raise MedvarError(
            f"Out of memory on {device} ({(str(error) or 'MemoryError').splitlines()[0]}). To reduce memory: {less}. "
            "Checkpoints are unchanged; --dry-run estimates the memory of a run."
        ) from error


def _ran_out(error: Exception) -> bool:
    """Whether an error means out of memory: CUDA has an exception class, the CPU's allocator only a message."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
