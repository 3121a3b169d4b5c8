"""Low-rank adaptation (LoRA, arXiv 2106.09685) of a trained transformer.

A linear map ``W`` becomes ``W + s · B A`` with ``A`` ``(rank, in)`` and ``B`` ``(out, rank)``. Only these matrices are
trained, and in embeddings only the rows of new names. After training, the result is merged into a plain `Transformer`,
so that only training code handles adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medvar_engine.models.transformer import Transformer

ALPHA = 16.0  # s = ALPHA / rank, so that the learning rate does not depend on the rank (section 4.1)


class LowRank(nn.Module):
    """A frozen weight ``(out, in)`` plus a trainable change of given rank, which starts at zero."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.scale = ALPHA / rank
        self.down = nn.Parameter(torch.empty(rank, columns, device=weight.device).normal_(std=columns**-0.5))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Weight ``(out, in)`` → adapted weight ``(out, in)``."""
        return weight + (self.up @ self.down) * self.scale


class NewRows(nn.Module):
    """An embedding ``(N, D)`` with some trainable rows; the others are frozen."""

    def __init__(self, weight: Tensor, rows: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows, device=weight.device))
        self.change = nn.Parameter(torch.zeros(len(rows), weight.shape[1], device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Embedding ``(N, D)`` → adapted embedding ``(N, D)``."""
        return weight.index_add(0, self.get_buffer("rows"), self.change)


def adapt(model: Transformer, rank: int, new_rows: Sequence[Sequence[int]] = ()) -> Transformer:
    """A copy of ``model`` with the same output, in which only adapters of ``rank`` and new labels are trainable.

    ``new_rows`` are the trainable rows of each factor's embedding. Raises `ValueError` when ``rank`` is below 1.
    """
    if rank < 1:
        raise ValueError(f"The rank of an adapter must be 1 or more, but is {rank}.")
    model = copy.deepcopy(model).requires_grad_(False)
    for linear in [module for module in model.modules() if isinstance(module, nn.Linear)]:
        parametrize.register_parametrization(linear, "weight", LowRank(linear.weight, rank))
    for embedding, rows in zip(model.labels, new_rows, strict=False):
        if rows:
            assert isinstance(embedding, nn.Embedding)
            parametrize.register_parametrization(embedding, "weight", NewRows(embedding.weight, rows))
    return model


def merge(model: Transformer) -> Transformer:
    """A plain copy of a transformer with its adapters merged into the weights; all weights are trainable again."""
    with torch.device("meta"):
        plain = Transformer(model.config)
    # Removing the adapters from a copy would break the original, because both share the modified classes.
    plain.load_state_dict({name: _effective(model, name) for name in plain.state_dict()}, assign=True)
    return plain.requires_grad_(True).train(model.training)


def _effective(model: Transformer, name: str) -> Tensor:
    """A copy of a weight with its adapter applied."""
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), leaf)
    return tensor.detach().clone()
