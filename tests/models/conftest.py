"""Models small enough for a test, with every weight random: what starts at zero would hide mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.transformer import Transformer, TransformerConfig

SCHEDULE, VOCABULARY, LATENT_CHANNELS = (1, 2, 3, 4), 64, 8


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """The same numbers in every run and order of tests, on one thread: the models are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_tokenizer() -> Callable[..., Tokenizer]:
    """Tokenizers of 16x16 pixels, four scales and 64 codes; keywords change the configuration."""

    def make(**changes: object) -> Tokenizer:
        values: dict[str, object] = {
            "image_size": 16,
            "schedule": SCHEDULE,
            "vocabulary": VOCABULARY,
            "latent_channels": LATENT_CHANNELS,
            "channels": (32, 32, 64),
            "res_blocks": 1,
        }
        model = Tokenizer(TokenizerConfig(**(values | changes)))  # type: ignore[arg-type]
        _randomise(model)
        return model.eval()

    return make


@pytest.fixture
def make_transformer() -> Callable[..., Transformer]:
    """Transformers of three blocks for those tokenizers, with two factors of 3 and 5 names."""

    def make(**changes: object) -> Transformer:
        values: dict[str, object] = {
            "schedule": SCHEDULE,
            "vocabulary": VOCABULARY,
            "latent_channels": LATENT_CHANNELS,
            "labels": (3, 5),
            "depth": 3,
            "width": 32,
            "heads": 4,
            "drop_path": 0.1 * 3 / 24,
        }
        model = Transformer(TransformerConfig(**(values | changes)))  # type: ignore[arg-type]
        _randomise(model)
        return model.eval()

    return make


@pytest.fixture
def tokenizer(make_tokenizer: Callable[..., Tokenizer]) -> Tokenizer:
    """The plain small tokenizer."""
    return make_tokenizer()


@pytest.fixture(params=[False, True], ids=["own-modulation", "shared-modulation"])
def transformer(request: pytest.FixtureRequest, make_transformer: Callable[..., Transformer]) -> Transformer:
    """The small transformer, both ways of modulating."""
    return make_transformer(shared_modulation=request.param)


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Random values of a size that keeps activations of order 1."""
    for name, parameter in model.named_parameters():
        parameter.normal_(std=0.5)
        if name.endswith("log_scale"):
            parameter.uniform_(1.0, 5.5)  # some beyond the limit log 100
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.normal_(std=module.weight[0].numel() ** -0.5)
