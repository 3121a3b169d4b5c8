"""The next-scale transformer (VAR, arXiv 2404.02905, section 3.2; MedVAR, arXiv 2602.14512).

It predicts each whole token map from all coarser ones. In training it processes the whole sequence with block-wise
causal attention; in inference it processes one scale at a time, with cached keys and values of the coarser scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medvar_engine.models.attention import attend, attend_by_scale
from medvar_engine.tokens.schedule import ScaleSchedule

_MAX_LOG_SCALE = 4.605170185988092  # log 100, the upper bound of the learned sharpness of l2-normalised attention


@dataclass(frozen=True)
class TransformerConfig:
    """The architecture of a transformer, and its regularisation in training."""

    schedule: tuple[int, ...]
    vocabulary: int  # V
    latent_channels: int  # C, channels of the scale features
    labels: tuple[int, ...]  # number of names of each condition factor
    depth: int
    width: int
    heads: int
    mlp_ratio: float = 4.0
    condition_dropout: float = 0.1  # share of training images with the unconditional label
    factor_dropout: float = 0.1  # share of training images without a factor, for each factor independently
    dropout: float = 0.0
    drop_path: float = 0.0  # stochastic depth of the last block; it rises linearly over the blocks
    shared_modulation: bool = False  # one AdaLN projection for all blocks, each with its own offset (as in VAR's d36)


KeysValues = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Self-attention with l2-normalised queries and keys, and a learned sharpness for each head."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))  # a bias of the keys would cancel out in the softmax
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), 4.0).log())
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, ends: tuple[int, ...] | None, past: Tensor | None) -> tuple[Tensor, KeysValues]:
        """``(B, L, D)`` → ``(B, L, D)``, and the keys and values of these L tokens, ``(B, heads, L, d)`` each.

        ``ends`` are the offsets at which scales end if ``x`` holds several scales (training), or None for a single
        scale (inference). ``past`` holds keys and values of coarser scales, ``(2, B, heads, P, d)``.
        """
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        q, k, v = rearrange(F.linear(x, self.qkv.weight, bias), "b l (n h d) -> n b h l d", n=3, h=self.heads)
        q = F.normalize(q, dim=-1) * self.log_scale.clamp(max=_MAX_LOG_SCALE).exp()
        k = F.normalize(k, dim=-1)
        v = v.to(k.dtype)
        present = k, v
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        dropout = self.dropout if self.training else 0.0
        q = q.to(k.dtype)
        out = attend(q, k, v, scale=1.0) if ends is None else attend_by_scale(q, k, v, ends, dropout=dropout)
        return self.proj(rearrange(out, "b h l d -> b l (h d)")), present


class BlockModulation(nn.Module):
    """AdaLN of one block: condition ``(B, D)`` → gates, scales and shifts ``(B, 6·D)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, condition: Tensor) -> Tensor:
        """``(B, D)`` → ``(B, 6·D)``."""
        return self.linear(F.silu(condition))  # type: ignore[no-any-return]


class SharedModulation(nn.Module):
    """Learned offset of one block from the shared AdaLN of all blocks: ``(B, 6·D)`` → ``(B, 6·D)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.randn(6 * width) / width**0.5)

    def forward(self, shared: Tensor) -> Tensor:
        """``(B, 6·D)`` → ``(B, 6·D)``."""
        return self.offset + shared


class Block(nn.Module):
    """Transformer block: attention and MLP, each modulated by the condition (AdaLN)."""

    def __init__(self, config: TransformerConfig, drop_path: float) -> None:
        super().__init__()
        width, hidden = config.width, round(config.width * config.mlp_ratio)
        self.drop_path = drop_path
        self.attention = Attention(width, config.heads, config.dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(approximate="tanh"),
            nn.Linear(hidden, width),
            nn.Dropout(config.dropout),
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation: SharedModulation | BlockModulation = (
            SharedModulation(width) if config.shared_modulation else BlockModulation(width)
        )

    def forward(
        self, x: Tensor, condition: Tensor, ends: tuple[int, ...] | None = None, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``(B, L, D)``, condition ``(B, D)`` or ``(B, 6·D)`` → ``(B, L, D)`` and these tokens' keys and values."""
        gate1, gate2, scale1, scale2, shift1, shift2 = self.modulation(condition)[:, None].chunk(6, dim=-1)
        h, present = self.attention(self.norm(x) * (1 + scale1) + shift1, ends, past)
        x = x + self._drop(h * gate1)
        x = x + self._drop(self.mlp(self.norm(x) * (1 + scale2) + shift2) * gate2)
        return x, present

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * keep / (1 - self.drop_path)


class Transformer(nn.Module):
    """Predicts the tokens of each scale from the features of all coarser scales and a condition."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = ScaleSchedule(config.schedule)
        self.recompute = False  # recompute activations in the backward pass: less memory, more time
        width = config.width
        self.labels = nn.ModuleList(nn.Embedding(size + 1, width) for size in config.labels)
        self.start = nn.Parameter(torch.empty(self.schedule.token_counts[0], width))
        self.positions = nn.Parameter(torch.empty(self.schedule.tokens, width))
        self.scales = nn.Embedding(len(self.schedule), width)
        self.features = nn.Linear(config.latent_channels, width)
        last = max(1, config.depth - 1)
        self.blocks = nn.ModuleList(Block(config, config.drop_path * i / last) for i in range(config.depth))
        self.shared_modulation = BlockModulation(width) if config.shared_modulation else nn.Identity()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, config.vocabulary)
        # Always on the CPU, so that a model built on the device "meta" lacks only its weights.
        counts = torch.tensor(self.schedule.token_counts, device="cpu")
        scale_of = torch.arange(len(self.schedule), device="cpu").repeat_interleave(counts)
        self.register_buffer("scale_of", scale_of, persistent=False)  # (L,)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as in VAR, with small gates, so that an untrained model is close to the identity."""
        width, depth = self.config.width, self.config.depth
        std = (1 / width / 3) ** 0.5
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.start, std=std)
        with torch.no_grad():
            self.positions.copy_(_waves_of_places(self.schedule, width) * std)
            self.head.weight.mul_(0.02)
            self.modulation.weight.mul_(0.5)
            for block in self.blocks:
                assert isinstance(block, Block)
                for branch_end in (block.attention.proj, cast(nn.Linear, block.mlp[2])):
                    branch_end.weight.div_((2 * depth) ** 0.5)
                own = block.modulation
                gates = own.offset if isinstance(own, SharedModulation) else own.linear.weight
                gates[: 2 * width].mul_(1e-5)
                gates[2 * width :].mul_(0.5)

    def condition(self, labels: Tensor) -> Tensor:
        """Labels ``(B, F)``, one integer per factor → the sum of their embeddings, ``(B, D)``."""
        return torch.stack([embed(labels[:, i]) for i, embed in enumerate(self.labels)]).sum(0)

    def embed(self, condition: Tensor, scale_features: Tensor | None, k: int) -> Tensor:
        """Input ``(B, L_k, D)`` of scale ``k``, from the condition (k = 0) or the scale features ``(B, L_k, C)``."""
        begin, end = self.schedule.offsets[k : k + 2]
        x = condition[:, None] + self.start if scale_features is None else self.features(scale_features)
        return x + self.scales.weight[k] + self.positions[begin:end]

    def logits(self, x: Tensor, condition: Tensor) -> Tensor:
        """Output of the blocks ``(B, L, D)`` → logits ``(B, L, V)``."""
        scale, shift = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
        return self.head(self.norm(x) * (1 + scale) + shift)  # type: ignore[no-any-return]

    def step(self, labels: Tensor, scale_features: Tensor | None, past: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
        """Run one scale in inference.

        ``past`` ``(depth, 2, B, heads, P, d)`` holds the keys and values of scales 0…k-1; None at k = 0. Returns logits
        ``(B, L_k, V)`` and the keys and values of scale k ``(depth, 2, B, heads, L_k, d)``. The caller keeps those of
        all scales, so that prefixes can share them.
        """
        condition = self.condition(labels)
        return self.continue_prefix(self.embed(condition, scale_features, k), condition, past)

    def continue_prefix(self, x: Tensor, condition: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Like `step`, with the embedded input ``x`` ``(B, L_k, D)``."""
        shared, presents = self.shared_modulation(condition), []
        for i, block in enumerate(self.blocks):
            x, present = block(x, shared, None, None if past is None else past[i])
            presents.append(torch.stack(present))
        return self.logits(x, condition), torch.stack(presents)

    def drop_condition(self, labels: Tensor) -> Tensor:
        """Labels ``(B, F)`` in which random images become unconditional, and random factors are left out.

        The first is needed for classifier-free guidance, the second for conditions with some factors only.
        """
        unconditional = torch.tensor(self.config.labels, device=labels.device)
        dropped = torch.rand(len(labels), 1, device=labels.device) < self.config.condition_dropout
        dropped = dropped | (torch.rand(labels.shape, device=labels.device) < self.config.factor_dropout)
        return torch.where(dropped, unconditional, labels)

    def forward(self, labels: Tensor, scale_features: Tensor) -> Tensor:
        """Teacher forcing: labels ``(B, F)``, scale features of scales 1…k ``(B, L - L_0, C)`` → logits ``(B, L, V)``.

        The sequence may end at any scale k; finer scales can be left out.
        """
        condition = self.condition(labels)
        first = condition[:, None] + self.start
        x = torch.cat((first, self.features(scale_features).to(first.dtype)), dim=1)
        length = x.shape[1]
        x = x + self.scales(self.get_buffer("scale_of")[:length]) + self.positions[:length]
        ends = tuple(end for end in self.schedule.offsets[1:] if end <= length)
        shared = self.shared_modulation(condition)
        for block in self.blocks:
            if self.recompute:
                x, _ = checkpoint(block, x, shared, ends, use_reentrant=False)
            else:
                x, _ = block(x, shared, ends)
        return self.logits(x, condition)


def _waves_of_places(schedule: ScaleSchedule, width: int) -> Tensor:
    """Sines and cosines of the position of each token in the image, ``(L, D)`` of about unit variance.

    Tokens of different scales at one position start with similar embeddings, so that a fine token attends to the coarse
    tokens at its position.
    """
    count = -(-width // 4)
    frequencies = math.pi / 2 * torch.logspace(0, math.log2(2 * schedule.latent_side), count, base=2.0)
    parts = []
    for side in schedule:
        centres = (torch.arange(side) + 0.5) / side
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        angles = torch.stack((rows.flatten(), columns.flatten()), 1)[:, :, None] * frequencies  # (L_k, 2, count)
        parts.append(torch.cat((angles.sin(), angles.cos()), 1).flatten(1)[:, :width] * 2**0.5)
    return torch.cat(parts)
