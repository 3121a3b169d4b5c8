"""What to do when memory runs out, said where it happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medvar_engine.errors import MedvarError
from medvar_engine.train.config import TrainConfig


@contextmanager
def memory_enough(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Raises `MedvarError` in place of what torch or NumPy raise when ``device``, or the machine, has no room left."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _ran_out(error):
            raise
        less = f"accumulate={2 * config.accumulate}, or a batch_size below {config.batch_size}, in a new out folder"
        if config.stage == "transformer" and not config.recompute:
            less = f"recompute=true, which goes with --resume; {less}"
        raise MedvarError(
            f"Memory ran out on {device} ({(str(error) or 'MemoryError').splitlines()[0]}). What needs less: {less}. "
            "Checkpoints are as they were; --dry-run says what a run needs."
        ) from error


def _ran_out(error: Exception) -> bool:
    """CUDA has a class for it; the CPU's allocator says it in words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
