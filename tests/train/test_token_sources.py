"""What the transformer learns from: every scale in every step, on slices encoded as they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.models.weight_files import load_tokenizer
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.stages.teacher_forcing import encoded, plain, similar_codes
from medvar_engine.train.stages.transformer_stage import TransformerStage, scale_weights


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
    found = encoded(tokenizer.quantizer, tokenizer.latent(images), 0.0, None, 4)
    for ours, its in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, its)


def test_targets_correct_replaced_tokens(tokenizer: ResolutionTokenizer) -> None:
    """The transformer would learn to go on as if its own mistakes had not been made."""
    torch.manual_seed(0)
    quantizer, images = tokenizer.quantizer, torch.rand(16, 1, 16, 16) * 2 - 1
    canvas = tokenizer.latent(images)
    features, targets = encoded(quantizer, canvas, 1.0, similar_codes(quantizer), 4)
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


def test_the_coarsest_scales_can_be_encoded_alone(tokenizer: ResolutionTokenizer) -> None:
    """They would be learned as other tokens than those of whole images."""
    canvas = tokenizer.latent(torch.rand(4, 1, 16, 16) * 2 - 1)
    features, targets = encoded(tokenizer.quantizer, canvas, 0.0, None, 4)
    coarse_features, coarse_targets = encoded(tokenizer.quantizer, canvas, 0.0, None, 2)
    assert torch.equal(coarse_features, features[:, :4])
    assert torch.equal(coarse_targets, targets[:, :5])


@pytest.mark.parametrize("preset", ["demo", "resolution"])
def test_further_slices_count_for_the_coarsest_scales_like_others(
    make_config: Callable[..., TrainConfig], slices: Path, preset: str
) -> None:
    """The first token, one of hundreds, decides what an image shows, and was learned from 16 slices a step."""
    config = make_config(stage="transformer", preset=preset, augment=False, coarse_slices=6)
    data = SliceDataset(slices, "train"), SliceDataset(slices, "test")
    stage = TransformerStage(config, *data, Processes(torch.device("cpu")))
    stage.model.drop_condition = lambda labels: labels  # type: ignore[method-assign]
    batch = tuple(map(torch.from_numpy, stage.batches[0, 0]))
    loss, _ = stage.loss(batch, 0)

    index, _ = stage.batches.draw(0, 0)
    assert len(index) == 8
    maps = stage.tokenizer.encode(torch.from_numpy(data[0].batch(index)))
    features, tokens = plain(stage.tokenizer.quantizer, maps)
    labels = stage._labels([data[0].conditions[int(i)] for i in index])
    losses = -stage.model(labels, features).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    means = torch.cat((losses[:, :5].mean(0), losses[:2, 5:].mean(0)))  # scales of 1 and 4 tokens: of all eight slices
    torch.testing.assert_close(loss, (means * stage.weights).sum())
