"""`Processes`: the processes of a run, one or as many as ``torchrun`` started on one or more machines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import Metric
from medvar_engine.train.device import pick_device

_PATIENCE = timedelta(hours=12)  # longest wait of other processes while one encodes all slices or validates


@dataclass(frozen=True)
class Processes:
    """This process among all processes of the run. Every process must call the same methods in the same order."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes files and messages."""
        return self.rank == 0

    def add(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def take_from_main(self, tensor: Tensor) -> Tensor:
        """Copy the main process's tensor to all processes, in place."""
        if self.size > 1:
            distributed.broadcast(tensor, src=0)
        return tensor

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process."""
        total = self.add(torch.tensor(flags, dtype=torch.float32, device=self.device))
        return [flag > 0 for flag in total.tolist()]

    def mean(self, metrics: Mapping[Metric, Tensor | float]) -> dict[Metric, float]:
        """The mean of each metric over all processes, which must have the same metrics."""
        if not metrics:
            return {}
        values = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=self.device) for v in metrics.values()])
        return dict(zip(metrics, (self.add(values) / self.size).tolist(), strict=True))

    def average_gradients(self, module: nn.Module) -> None:
        """Average the gradients of a small module that is trained without a wrapper."""
        for parameter in module.parameters() if self.size > 1 else ():
            if parameter.grad is not None:
                self.add(parameter.grad).div_(self.size)

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            distributed.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process first, so that the other processes find the files that it writes."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, found by its environment variables; otherwise only this one.

    Raises `MedvarError` when the device is not available or the processes cannot connect.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes(pick_device(device))
        return
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    here = pick_device(f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    try:
        distributed.init_process_group("nccl" if here.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise MedvarError(f"The {size} processes of this run cannot connect to each other: {error}") from error
    try:
        yield Processes(here, distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
