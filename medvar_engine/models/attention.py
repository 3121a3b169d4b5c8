"""Scaled dot-product attention, as a fused kernel or written out, whichever is faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float = 0.0) -> Tensor:
    """Attention of every query to every key: query ``(…, L, d)``, key and value ``(…, S, d)`` → ``(…, L, d)``."""
    return (fused if query.is_cuda else two_products)(query, key, value, scale=scale, dropout=dropout)


def fused(query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float) -> Tensor:
    """`attend` as one fused kernel, for GPUs."""
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)


def two_products(query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float) -> Tensor:
    """`attend` as two matrix products and a softmax.

    On a CPU, these take about half the time of the fused kernel, forward and backward, and every ONNX runtime supports
    them.
    """
    weights = (query @ key.mT * scale).softmax(-1)
    return (F.dropout(weights, dropout) if dropout else weights) @ value


def attend_by_scale(query: Tensor, key: Tensor, value: Tensor, ends: tuple[int, ...], *, dropout: float) -> Tensor:
    """Block-wise causal attention: a token attends to its own scale and all coarser ones.

    All tensors are ``(B, heads, L, d)``; ``ends`` are the offsets at which the scales end. One call per scale needs no
    mask, and computes nothing that a mask would discard.
    """
    parts, begin = [], 0
    for end in ends:
        seen = (query[:, :, begin:end], key[:, :, :end], value[:, :, :end])
        parts.append(attend(*seen, scale=1.0, dropout=dropout))
        begin = end
    return torch.cat(parts, dim=2)
