"""What the transformer learns from: every scale in every step, on slices encoded as they come."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.models.weight_files import load_tokenizer
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.train.stages.teacher_forcing import encoded, plain, similar_codes
from medvar_engine.train.stages.transformer_stage import scale_weights


def test_weights_of_scales() -> None:
    """The coarsest scale, one token, decides most about an image and would hardly count."""
    schedule = ScaleSchedule((1, 2, 3))
    alike, by_token, mixed = (scale_weights(schedule, balance) for balance in (1.0, 0.0, 0.5))
    for weights in (alike, by_token, mixed):
        assert float(weights.sum()) == pytest.approx(1)
    assert [float(part.sum()) for part in alike.split((1, 4, 9))] == pytest.approx([1 / 3] * 3)
    assert by_token.tolist() == pytest.approx([1 / 14] * 14)
    torch.testing.assert_close(mixed, (alike + by_token) / 2)


@pytest.fixture
def tokenizer(resolution_file: Path) -> ResolutionTokenizer:
    model = load_tokenizer(resolution_file)
    assert isinstance(model, ResolutionTokenizer)
    return model


def test_without_corruption_it_is_plain_teacher_forcing(tokenizer: ResolutionTokenizer) -> None:
    """Training would learn other tokens than generating encodes."""
    images = torch.rand(4, 1, 16, 16) * 2 - 1
    expected = plain(tokenizer.quantizer, tokenizer.encode(images))
    found = encoded(tokenizer.quantizer, tokenizer.latent(images), 0.0, None)
    for ours, its in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, its)


def test_targets_correct_replaced_tokens(tokenizer: ResolutionTokenizer) -> None:
    """The transformer would learn to go on as if its own mistakes had not been made."""
    torch.manual_seed(0)
    quantizer, images = tokenizer.quantizer, torch.rand(16, 1, 16, 16) * 2 - 1
    canvas = tokenizer.latent(images)
    features, targets = encoded(quantizer, canvas, 1.0, similar_codes(quantizer))
    true = torch.cat(tokenizer.encode(images), 1)
    assert torch.equal(targets[:, :1], true[:, :1])  # nothing is replaced before the first scale
    assert not torch.equal(targets, true)
    assert features.shape == (16, 4 + 9 + 16, 12)
    assert not torch.allclose(features, quantizer.scale_features(tokenizer.encode(images)))


def test_similar_codes_exclude_the_code_itself(tokenizer: ResolutionTokenizer) -> None:
    """A replaced token would be the same one."""
    table = similar_codes(tokenizer.quantizer)
    assert table.shape == (4, 32, 16)
    assert (table != torch.arange(32)[None, :, None]).all()
