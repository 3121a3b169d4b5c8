"""Low-rank adaptation (LoRA, arXiv 2106.09685): a trained transformer learns by small changes of its weights.

A linear map ``W`` becomes ``W + s · B A`` with ``A`` ``(rank, in)`` and ``B`` ``(out, rank)``, and only these learn;
of the embeddings only the rows of new names do. What comes out is merged into a plain `Transformer`, so that nothing
beyond training knows of adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medvar_engine.models.transformer import Transformer

ALPHA = 16.0  # s = ALPHA / rank, so that the learning rate need not change with the rank (section 4.1)


class LowRank(nn.Module):
    """A weight ``(out, in)`` and its change of a given rank, which starts at zero."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.scale = ALPHA / rank
        self.down = nn.Parameter(torch.empty(rank, columns, device=weight.device).normal_(std=columns**-0.5))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """``(out, in)`` → ``(out, in)``."""
        return weight + (self.up @ self.down) * self.scale


class NewRows(nn.Module):
    """An embedding ``(N, D)`` of which some rows learn, in full, and the others stay as they are."""

    def __init__(self, weight: Tensor, rows: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows, device=weight.device))
        self.change = nn.Parameter(torch.zeros(len(rows), weight.shape[1], device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """``(N, D)`` → ``(N, D)``."""
        return weight.index_add(0, self.get_buffer("rows"), self.change)


def adapt(model: Transformer, rank: int, new_rows: Sequence[Sequence[int]] = ()) -> Transformer:
    """A copy of ``model`` that computes the same, and of which only adapters of ``rank`` and new labels learn.

    ``new_rows`` are the rows of each factor's embedding that learn. Raises `ValueError` when ``rank`` is below 1.
    """
    if rank < 1:
        raise ValueError(f"The rank of an adapter is at least 1, not {rank}.")
    model = copy.deepcopy(model).requires_grad_(False)
    for linear in [module for module in model.modules() if isinstance(module, nn.Linear)]:
        parametrize.register_parametrization(linear, "weight", LowRank(linear.weight, rank))
    for embedding, rows in zip(model.labels, new_rows, strict=False):
        if rows:
            assert isinstance(embedding, nn.Embedding)
            parametrize.register_parametrization(embedding, "weight", NewRows(embedding.weight, rows))
    return model


def merge(model: Transformer) -> Transformer:
    """A plain copy of a transformer, in which adapters have become part of the weights; all of it can learn again."""
    with torch.device("meta"):
        plain = Transformer(model.config)
    # Not by taking the adapters out of a copy: a copy shares its classes, so that would break the original.
    plain.load_state_dict({name: _effective(model, name) for name in plain.state_dict()}, assign=True)
    return plain.requires_grad_(True).train(model.training)


def _effective(model: Transformer, name: str) -> Tensor:
    """A copy of a weight as the model computes with it."""
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), leaf)
    return tensor.detach().clone()
