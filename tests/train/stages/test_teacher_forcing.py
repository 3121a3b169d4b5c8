from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.train.stages.teacher_forcing import corrupted, plain

SCHEDULE = ScaleSchedule((1, 2, 3, 6))


@pytest.fixture
def quantizer() -> MultiScaleQuantizer:
    torch.manual_seed(0)
    return MultiScaleQuantizer(SCHEDULE, 256, 4).requires_grad_(False)


@pytest.fixture
def tokens(quantizer: MultiScaleQuantizer) -> tuple[Tensor, ...]:
    return quantizer.encode(torch.randn(8, 4, 6, 6))


def test_nothing_replaced_is_plain_teacher_forcing(quantizer: MultiScaleQuantizer, tokens: tuple[Tensor, ...]) -> None:
    """Switching corruption on would change the targets of images that nothing was replaced in."""
    for ours, its in zip(corrupted(quantizer, tokens, 0.0, 4), plain(quantizer, tokens), strict=True):
        torch.testing.assert_close(ours, its, rtol=0, atol=1e-5)


def test_targets_correct_replaced_tokens(quantizer: MultiScaleQuantizer, tokens: tuple[Tensor, ...]) -> None:
    """The transformer would learn to go on as if its own mistakes had not been made, which is what it does already."""
    torch.manual_seed(1)
    features, targets = corrupted(quantizer, tokens, 1.0, 4)
    assert features.shape == (8, SCHEDULE.tokens - 1, 4)
    whole = quantizer.decode(tokens)
    seen = features[:, -36:].transpose(1, 2).unflatten(2, (6, 6))  # what the finest scale is given

    def error(last: Tensor) -> float:
        return float((seen + quantizer.lift(last, 3) - whole).square().mean())

    mended, blind = error(targets[:, -36:]), error(tokens[3])
    assert mended < blind
    assert torch.equal(targets[:, :1], tokens[0])  # nothing has been replaced before the first scale


def test_an_image_keeps_its_tokens_until_one_is_replaced(
    quantizer: MultiScaleQuantizer, tokens: tuple[Tensor, ...]
) -> None:
    """Coding all scales anew would throw away the tokenizer's own choices, and teach slightly worse ones."""
    torch.manual_seed(2)
    features, targets = corrupted(quantizer, tokens, 0.05, 4)
    plain_features, plain_targets = plain(quantizer, tokens)
    same = (features - plain_features).abs().amax((1, 2)) < 1e-5
    assert 0 < same.sum() < len(same)
    assert torch.equal(targets[same], plain_targets[same])


def test_the_coarsest_scales_alone_are_the_same(quantizer: MultiScaleQuantizer, tokens: tuple[Tensor, ...]) -> None:
    """Slices from which only these are learned would teach something else."""
    torch.manual_seed(3)
    features, targets = corrupted(quantizer, tokens, 1.0, 2)
    torch.manual_seed(3)
    all_features, all_targets = corrupted(quantizer, tokens, 1.0, 4)
    assert torch.equal(features, all_features[:, :4])
    assert torch.equal(targets, all_targets[:, :5])
