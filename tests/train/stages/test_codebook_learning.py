"""How the codebook learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.train.stages.codebook_learning import CodebookFollower, CodeUse

SCHEDULE = ScaleSchedule((1, 2, 3, 6))


@pytest.fixture
def quantizer() -> MultiScaleQuantizer:
    """64 codes of 8 channels."""
    torch.manual_seed(0)
    return MultiScaleQuantizer(SCHEDULE, 64, 8)


def latents(count: int) -> Tensor:
    """Random latents ``(count, 8, 6, 6)``."""
    return torch.randn(count, 8, 6, 6)


def test_codes_follow_the_vectors_that_chose_them(quantizer: MultiScaleQuantizer) -> None:
    """The codebook has no gradient: if it did not follow the data, no training would bring the images nearer."""
    quantized = quantizer(latents(4))
    before = quantizer.codebook.weight.clone()
    CodebookFollower(quantizer).follow(quantizer, CodeUse.of(quantizer, quantized), decay=0.0)
    index, vectors = torch.cat([t.flatten() for t in quantized.tokens]), torch.cat(quantized.residuals)
    used = index.unique()
    assert 1 < len(used) < quantizer.vocabulary
    for code in range(quantizer.vocabulary):
        expected = vectors[index == code].mean(0) if code in used else before[code]
        torch.testing.assert_close(quantizer.codebook.weight[code], expected, rtol=0, atol=1e-5)


def test_dead_codes_are_found_and_moved_to_the_data(quantizer: MultiScaleQuantizer) -> None:
    """Codebook collapse at retraining is what users of VAR suffer from most: unused codes have to come back."""
    with torch.no_grad():
        quantizer.codebook.weight[10:] += 1000  # out of reach
    data, follower = latents(16), CodebookFollower(quantizer)
    for _ in range(5):
        follower.follow(quantizer, CodeUse.of(quantizer, quantizer(data)))
    torch.testing.assert_close(  # the usage of scale k rises to side² hits an image
        quantizer.get_buffer("usage").sum(1), (1 - 0.98**5) * torch.tensor(SCHEDULE.token_counts).float()
    )
    follower.restart_dead(quantizer, quantizer(data))
    used = torch.cat(quantizer.encode(data), dim=1).unique()
    assert int((used >= 10).sum()) > 10


def test_use_adds_up_over_the_parts_of_a_batch(quantizer: MultiScaleQuantizer) -> None:
    """A codebook that follows one of several processes forgets what the others saw."""
    data = latents(6)
    whole = CodeUse.of(quantizer, quantizer(data))
    parts = CodeUse.of(quantizer, quantizer(data[:2])) + CodeUse.of(quantizer, quantizer(data[2:]))
    for name in ("count", "sum", "hits", "images"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-5)
