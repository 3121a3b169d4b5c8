"""Fully sharded training: weights and optimiser state are distributed over processes (FSDP2, arXiv 2304.11277).

Checkpoints use torch's distributed format with safetensors files, so that loading them runs no code, and a run can be
resumed with any number of processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as checkpoint
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer

from medvar_engine.models.transformer import Transformer
from medvar_engine.train.distributed.processes import Processes

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def shard(model: nn.Module, processes: Processes) -> None:
    """Distribute the weights of every block over the processes; they are gathered while the block runs."""
    assert isinstance(model, Transformer)
    mesh = init_device_mesh(processes.device.type, (processes.size,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "step")


def synchronise(model: nn.Module, on: bool) -> None:
    """Set whether the next backward pass sends gradients to the processes that own the weights."""
    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(on)


def write(folder: Path, model: nn.Module, average: nn.Module, optimizer: Optimizer) -> None:
    """Write a checkpoint, to which each process contributes its share. Raises `OSError` when one of them fails."""
    try:
        checkpoint.save(
            _state(model, average, optimizer),
            storage_writer=checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True),
        )
    except checkpoint.CheckpointException as error:
        raise OSError(str(error)) from error


def restore(folder: Path, model: nn.Module, average: nn.Module, optimizer: Optimizer) -> None:
    """The inverse of `write`, with any number of processes. Raises `ValueError` when the checkpoint does not fit."""
    state = _state(model, average, optimizer)
    try:
        checkpoint.load(state, storage_reader=checkpoint.HuggingFaceStorageReader(str(folder)))
    except checkpoint.CheckpointException as error:
        raise ValueError(str(error)) from error
    parts: dict[str, dict[str, Any]] = {"model": {}, "average": {}, "optimizer": {}}
    for name, tensor in state.items():
        part, key = name.split("/", 1)
        parts[part][key] = tensor
    set_model_state_dict(model, parts["model"])
    set_model_state_dict(average, parts["average"])
    groups = get_optimizer_state_dict(
        model, optimizer, options=_FLAT
    )  # learning rates and similar values come from the settings
    set_optimizer_state_dict(model, optimizer, groups | parts["optimizer"], options=_FLAT)


def gathered(model: nn.Module) -> Transformer | None:
    """The whole model on the CPU in the first process; None in the others."""
    assert isinstance(model, Transformer)
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not state:
        return None
    whole = Transformer(model.config)
    whole.load_state_dict(state)
    return whole.eval()


def _state(model: nn.Module, average: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """All tensors by name, as ``model/…``, ``average/…`` and ``optimizer/…``."""
    parts: dict[str, dict[str, Any]] = {
        "model": get_model_state_dict(model),
        "average": get_model_state_dict(average),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=_FLAT),
    }
    return {
        f"{part}/{name}": value
        for part, values in parts.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
