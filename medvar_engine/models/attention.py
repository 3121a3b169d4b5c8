"""Attention, spelt out where that is faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float = 0.0) -> Tensor:
    """Every query sees every key: ``(…, L, d)`` and ``(…, S, d)`` twice → ``(…, L, d)``."""
    return (fused if query.is_cuda else spelt_out)(query, key, value, scale=scale, dropout=dropout)


def fused(query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float) -> Tensor:
    """`attend` as one kernel, for GPUs."""
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)


def spelt_out(query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float) -> Tensor:
    """`attend` as two products and a softmax.

    On a CPU they take about half the time of the fused kernel, forward and backward; and they are what every ONNX
    runtime knows.
    """
    weights = (query @ key.mT * scale).softmax(-1)
    return (F.dropout(weights, dropout) if dropout else weights) @ value


def attend_by_scale(query: Tensor, key: Tensor, value: Tensor, ends: tuple[int, ...], *, dropout: float) -> Tensor:
    """Block-wise causal attention: a token sees its own scale and all coarser ones.

    ``(B, heads, L, d)`` each; ``ends`` are the offsets at which the scales end. One call a scale needs no mask, and
    computes nothing that a mask would throw away.
    """
    parts, begin = [], 0
    for end in ends:
        seen = (query[:, :, begin:end], key[:, :, :end], value[:, :, :end])
        parts.append(attend(*seen, scale=1.0, dropout=dropout))
        begin = end
    return torch.cat(parts, dim=2)
