"""Named model sizes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from medvar_engine.errors import MedvarError
from medvar_engine.models.presets import PRESETS, tokenizer_preset, transformer_preset
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.transformer import Transformer


def millions(name: str, labels: tuple[int, ...]) -> tuple[float, float]:
    """Parameters of a preset's tokenizer and transformer, counted without allocating them."""
    config = tokenizer_preset(name)
    assert isinstance(config, TokenizerConfig)
    with torch.device("meta"):
        models = Tokenizer(config), Transformer(transformer_preset(name, config, labels))
    tokenizer, transformer = (sum(p.numel() for p in model.parameters()) / 1e6 for model in models)
    return tokenizer, transformer


@pytest.mark.parametrize(("name", "expected"), [("d16", 310), ("d20", 601), ("d24", 1033), ("d30", 2010)])
def test_published_sizes(name: str, expected: float) -> None:
    """Weights trained elsewhere at VAR's sizes would not fit, and comparisons with the papers would not be fair."""
    tokenizer, transformer = millions(name, (1000,))
    assert tokenizer == pytest.approx(108.94, abs=0.01)
    assert transformer == pytest.approx(expected, abs=0.5)
    config = transformer_preset(name, tokenizer_preset(name), (1000,))
    depth = int(name[1:])
    assert (config.depth, config.width, config.heads, config.drop_path) == (depth, 64 * depth, depth, 0.1 * depth / 24)


def test_demo_is_small() -> None:
    """The demo is shipped to every user and trained on two CPU cores."""
    assert sum(millions("demo", (2, 6, 3, 26))) <= 15


@pytest.mark.parametrize("name", PRESETS)
def test_tokenizer_and_transformer_fit(name: str) -> None:
    """A preset whose two halves disagree would fail only after the tokenizer has been trained."""
    tokenizer = tokenizer_preset(name)
    transformer = transformer_preset(name, tokenizer, (3,))
    assert transformer.schedule == tokenizer.schedule
    assert (transformer.vocabulary, transformer.latent_channels) == (tokenizer.vocabulary, tokenizer.feature_channels)
    assert transformer.width % transformer.heads == 0


def test_unknown_preset() -> None:
    """A typo in a recipe has to be answered with the names there are."""
    with pytest.raises(MedvarError, match="Unknown preset 'd17'; the presets are resolution, demo, small, d16"):
        tokenizer_preset("d17")


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [("demo", 256, 32), ("demo", 112, 14), ("d16", 224, 14), ("d16", 512, 32), ("small", 128, 8)],
)
def test_presets_come_in_other_sizes(name: str, size: int, side: int) -> None:
    """MedVAR's slices of 224 pixels, or those of 512 that CT scanners give, could not be trained on."""
    config = tokenizer_preset(name, size)
    assert (config.image_size, config.schedule[-1]) == (size, side)
    assert tokenizer_preset(name).channels == config.channels
    assert all(a < b for a, b in pairwise(config.schedule))
    with pytest.raises(MedvarError, match=r"pixels per side, not 300"):
        tokenizer_preset(name, 300)
