"""Attention on a GPU is attention on a CPU: both ways of computing it, side by side where tests run."""

from __future__ import annotations

import pytest
import torch

from medvar_engine.models.attention import fused, two_products


@pytest.mark.parametrize("scale", [1.0, 0.35], ids=["normalised", "scaled"])
def test_both_ways_agree(scale: float) -> None:
    """A model trained on a GPU would draw other images on a CPU, and nobody would see why."""
    draws = []
    for attend in (fused, two_products):
        rng = torch.Generator().manual_seed(0)
        shapes = ((2, 3, 5, 8), (2, 3, 14, 8), (2, 3, 14, 8))  # a scale's 5 tokens see themselves and 9 coarser ones
        inputs = [torch.randn(shape, generator=rng).requires_grad_() for shape in shapes]
        out = attend(*inputs, scale=scale, dropout=0.0)
        draws.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    for ours, other in zip(*draws, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attend", [fused, two_products], ids=["fused", "spelt-out"])
def test_dropout_keeps_the_mean(attend: object) -> None:
    """One way would drop nothing, or shrink what is left, and the same settings would train two models."""
    torch.manual_seed(0)
    query, key, value = torch.zeros(64, 1, 50, 4), torch.zeros(64, 1, 50, 4), torch.ones(64, 1, 50, 4)
    out = attend(query, key, value, scale=1.0, dropout=0.4)  # type: ignore[operator]
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert out.std().item() == pytest.approx((0.4 / 0.6 / 50) ** 0.5, rel=0.05)  # of 50 equal shares
