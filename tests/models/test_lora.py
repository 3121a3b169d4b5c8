"""Low-rank adaptation: it starts from the base exactly, learns only what it should, and leaves a plain model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medvar_engine.conditions import LabelSpace
from medvar_engine.models.lora import LowRank, adapt, merge
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_transformer, save_transformer

LABELS = torch.tensor([[0, 4], [2, 5], [3, 5]])
NAMES = LabelSpace(modality=("a", "b", "c"), region=("d", "e", "f", "g", "h"))


@pytest.fixture
def features(transformer: Transformer) -> Tensor:
    """Input of scales 1…3 of three images."""
    return torch.randn(len(LABELS), 29, transformer.config.latent_channels)


def learnt(model: Transformer) -> Transformer:
    """As after training: every trainable number moved."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing(transformer: Transformer, features: Tensor) -> None:
    """Fine-tuning would first have to repair what the adapters broke."""
    adapted = adapt(transformer, 4, [[1, 2], [0]])
    assert torch.equal(adapted(LABELS, features), transformer(LABELS, features))


@torch.no_grad()
def test_merged_equals_adapted(transformer: Transformer, features: Tensor) -> None:
    """The exported model would be another than the one that was validated."""
    adapted = learnt(adapt(transformer, 4, [[1, 2], [0]]))
    merged = merge(adapted)
    expected = adapted(LABELS, features)
    assert (expected - transformer(LABELS, features)).abs().max() > 0.1
    torch.testing.assert_close(merged(LABELS, features), expected, rtol=0, atol=1e-5)


def test_a_merged_model_has_no_adapters(transformer: Transformer, tmp_path: Path) -> None:
    """Export and the torch backend would not read the file: they know nothing of adapters."""
    merged = merge(learnt(adapt(transformer, 2, [[0], []])))
    assert {n: p.shape for n, p in merged.named_parameters()} == {n: p.shape for n, p in transformer.named_parameters()}
    assert [type(m) for m in merged.modules()] == [type(m) for m in transformer.modules()]
    save_transformer(tmp_path / "merged.safetensors", merged, NAMES)
    loaded, _ = load_transformer(tmp_path / "merged.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), merged.parameters(), strict=True))
    assert torch.equal(merge(transformer).head.weight, transformer.head.weight)  # also when there is nothing to merge


def test_only_adapters_and_new_labels_learn(transformer: Transformer, features: Tensor) -> None:
    """A base that moved would forget; an adapter without gradient, or a new label without one, would learn nothing."""
    adapted = learnt(adapt(transformer, 2, [[1], []]))
    adapted.train()(LABELS, features).square().sum().backward()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    linear = [module for module in transformer.modules() if isinstance(module, nn.Linear)]
    assert len([name for name in trained if name.endswith((".up", ".down"))]) == 2 * len(linear)
    assert {name for name in trained if not name.endswith((".up", ".down"))} == {
        "labels.0.parametrizations.weight.0.change"
    }
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for n, p in adapted.named_parameters()
        if n in trained and "labels" not in n
    )
    before, after = transformer.labels[0].weight, merge(adapted).labels[0].weight
    assert (before != after).any(dim=1).tolist() == [False, True, False, False]


def test_the_change_has_the_rank_requested(make_transformer: Callable[..., Transformer]) -> None:
    """A rank that does not limit the change would neither save memory nor keep from memorising."""
    base = make_transformer()
    change = merge(learnt(adapt(base, 3))).head.weight - base.head.weight
    assert int(torch.linalg.matrix_rank(change.double(), rtol=1e-4)) == 3
    assert sum(m.up.numel() + m.down.numel() for m in adapt(base, 3).modules() if isinstance(m, LowRank)) < 0.4 * sum(
        m.weight.numel() for m in base.modules() if isinstance(m, nn.Linear)
    )
    with pytest.raises(ValueError, match="1 or more"):
        adapt(base, 0)


def test_the_base_model_is_unchanged(transformer: Transformer) -> None:
    """A caller that still needs the base, to compare with, would hold an adapted one."""
    before = [parameter.clone() for parameter in transformer.parameters()]
    learnt(adapt(transformer, 2))
    assert all(torch.equal(a, b) for a, b in zip(before, transformer.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in transformer.parameters())
