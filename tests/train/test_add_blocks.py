"""Blocks that are added to a transformer change nothing at first, and can learn."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from medvar_engine.conditions import LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import load_transformer, save_transformer

SCRIPT = Path(__file__).parents[2] / "medvar_engine" / "train" / "recipes" / "add_blocks.py"
LABELS = LabelSpace(modality=("CT", "MR"))


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The functions of the script, which is no part of the installed package."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def base() -> Transformer:
    torch.manual_seed(0)
    shape = TransformerConfig((1, 2, 4), 16, 6, LABELS.sizes, depth=3, width=8, heads=2, shared_modulation=True)
    model = Transformer(shape).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_deeper_network_computes_the_same(script: dict[str, Any], base: Transformer, count: int) -> None:
    """Training would begin with what is worse than before."""
    deeper = script["deeper"](base, count).eval()
    assert deeper.config.depth == len(deeper.blocks) == 3 + count
    labels, features = torch.tensor([[0], [1]]), torch.randn(2, 20, 6)
    torch.testing.assert_close(deeper(labels, features), base(labels, features))


def test_new_blocks_learn(script: dict[str, Any], base: Transformer) -> None:
    """A block of zeros alone would get no gradient, ever."""
    deeper = script["deeper"](base, 1).train()
    deeper(torch.tensor([[0]]), torch.randn(1, 20, 6)).square().sum().backward()
    new = deeper.blocks[3]
    assert new.attention.proj.weight.grad.abs().max() > 0
    assert new.mlp[2].weight.grad.abs().max() > 0


def test_files(script: dict[str, Any], base: Transformer, tmp_path: Path) -> None:
    save_transformer(tmp_path / "base.safetensors", base, LABELS)
    script["main"]([str(tmp_path / "base.safetensors"), "2", str(tmp_path / "deeper.safetensors")])
    deeper, labels = load_transformer(tmp_path / "deeper.safetensors")
    assert deeper.config.depth == 5
    assert labels == LABELS


@pytest.mark.parametrize("count", [0, 4, -1])
def test_impossible_counts_are_refused(script: dict[str, Any], base: Transformer, count: int) -> None:
    with pytest.raises(MedvarError, match="From 1 to 3 blocks"):
        script["deeper"](base, count)


def test_mistakes_are_reported_without_a_traceback(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script["main"]([str(tmp_path / "missing.safetensors"), "2", str(tmp_path / "deeper.safetensors")])
    assert "missing.safetensors" in capsys.readouterr().err
