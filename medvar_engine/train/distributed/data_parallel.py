"""Data-parallel training (DDP): every process has a copy of the weights, and their gradients are averaged."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def replicate(model: nn.Module) -> nn.Module:
    """The model with the same weights, and the same gradients after each backward pass, in all processes.

    Buffers are not sent: a stage sums the statistics behind them over all processes, so that they stay equal.
    """
    return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def synchronise(network: nn.Module, on: bool) -> AbstractContextManager[None]:
    """Whether backward passes in this context average the gradients, which may wait for the last micro-batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not on else nullcontext()
