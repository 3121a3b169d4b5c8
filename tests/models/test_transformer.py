"""The next-scale transformer: what it may see, and that inference computes what training did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from medvar_engine.generate.sampling import guide_away
from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.models.sample import sample
from medvar_engine.models.transformer import Transformer
from medvar_engine.request import Sampling

LABELS = torch.tensor([[0, 4], [2, 5], [3, 5]])  # the last is the unconditional class of both factors
MakeTransformer = Callable[..., Transformer]


@pytest.fixture
def quantizer(transformer: Transformer) -> MultiScaleQuantizer:
    """Gives the features of a token pyramid."""
    config = transformer.config
    model = MultiScaleQuantizer(transformer.schedule, config.vocabulary, config.latent_channels)
    torch.nn.init.normal_(model.codebook.weight)
    return model.eval()


def random_tokens(transformer: Transformer) -> tuple[Tensor, ...]:
    """One pyramid a row of `LABELS`."""
    counts = transformer.schedule.token_counts
    return tuple(torch.randint(transformer.config.vocabulary, (len(LABELS), count)) for count in counts)


@torch.no_grad()
def test_stepwise_inference_equals_teacher_forcing(transformer: Transformer, quantizer: MultiScaleQuantizer) -> None:
    """Training sees the whole masked sequence, generation one scale and cached keys: a user's images would be
    drawn by another model than the trained one if the two differed.
    """
    schedule = transformer.schedule
    features = quantizer.scale_features(random_tokens(transformer))
    expected = transformer(LABELS, features)
    assert expected.shape == (len(LABELS), schedule.tokens, transformer.config.vocabulary)
    past, first = None, schedule.offsets[1]
    for k in range(len(schedule)):
        begin, end = schedule.offsets[k : k + 2]
        logits, present = transformer.step(LABELS, features[:, begin - first : end - first] if k else None, past, k)
        past = present if past is None else torch.cat((past, present), dim=4)
        torch.testing.assert_close(logits, expected[:, begin:end], rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_token_changes_only_finer_scales(transformer: Transformer, quantizer: MultiScaleQuantizer) -> None:
    """A scale that saw its own or finer tokens would train to perfection and draw noise; one that did not see a
    coarser one would ignore a user's edit.
    """
    tokens = random_tokens(transformer)
    before = transformer(LABELS, quantizer.scale_features(tokens))
    for k, offset in enumerate(transformer.schedule.offsets[1:]):
        changed = [token_map.clone() for token_map in tokens]
        changed[k][:, -1] = (changed[k][:, -1] + 1) % transformer.config.vocabulary
        after = transformer(LABELS, quantizer.scale_features(tuple(changed)))
        assert torch.equal(after[:, :offset], before[:, :offset])
        assert not (after[:, offset:] == before[:, offset:]).all(dim=2).any()  # every finer token sees it


@torch.no_grad()
def test_a_prefix_can_be_continued_twice(transformer: Transformer, quantizer: MultiScaleQuantizer) -> None:
    """Candidates and resampling share one prefix: a step that changed it would make the second candidate wrong."""
    features = quantizer.scale_features(random_tokens(transformer))[:, :4]
    _, past = transformer.step(LABELS, None, None, 0)
    kept = past.clone()
    first, _ = transformer.step(LABELS, features, past, 1)
    transformer.step(LABELS, features + 1, past, 1)
    again, _ = transformer.step(LABELS, features, past, 1)
    assert torch.equal(past, kept)
    assert torch.equal(first, again)


@torch.no_grad()
def test_each_factor_of_the_condition_counts(transformer: Transformer, quantizer: MultiScaleQuantizer) -> None:
    """A factor without effect on the first scale would let a user ask for MR and get the same as for CT."""
    base, _ = transformer.step(torch.tensor([[0, 0]]), None, None, 0)
    for other in ([1, 0], [0, 1], [3, 0], [0, 5]):
        changed, _ = transformer.step(torch.tensor([other]), None, None, 0)
        assert not torch.allclose(base, changed, atol=1e-3)


def test_dropped_conditions_are_the_unconditional_class(make_transformer: MakeTransformer) -> None:
    """Guidance asks for the unconditional class: it has to be the one that training dropped to, in all factors."""
    labels = torch.stack((torch.arange(4000) % 3, torch.arange(4000) % 5), dim=1)
    dropped = make_transformer(condition_dropout=0.25, factor_dropout=0.0).drop_condition(labels)
    is_dropped = (dropped == torch.tensor([3, 5])).all(dim=1)
    assert torch.equal(dropped[~is_dropped], labels[~is_dropped])
    assert 0.22 < float(is_dropped.float().mean()) < 0.28
    assert torch.equal(make_transformer(condition_dropout=0.0, factor_dropout=0.0).drop_condition(labels), labels)
    assert make_transformer(condition_dropout=1.0).drop_condition(labels).unique(dim=0).tolist() == [[3, 5]]


def test_factors_are_dropped_independently(make_transformer: MakeTransformer) -> None:
    """Whoever asks for a modality and leaves the region open needs a model that has seen such conditions."""
    torch.manual_seed(0)
    labels = torch.stack((torch.arange(4000) % 3, torch.arange(4000) % 5), dim=1)
    dropped = make_transformer(condition_dropout=0.0, factor_dropout=0.25).drop_condition(labels)
    gone = dropped == torch.tensor([3, 5])
    assert torch.equal(dropped[~gone], labels[~gone])
    for share, expected in ((gone[:, 0], 0.25), (gone[:, 1], 0.25), (gone.all(1), 0.0625)):
        assert float(share.float().mean()) == pytest.approx(expected, abs=0.03)


def test_drop_path_and_dropout_only_while_training(make_transformer: MakeTransformer) -> None:
    """The same seed has to give the same image: nothing random may be left in a loaded model."""
    model = make_transformer(drop_path=0.5, dropout=0.2)
    features = torch.randn(3, 29, model.config.latent_channels)
    assert [block.drop_path for block in model.blocks] == [0.0, 0.25, 0.5]
    with torch.no_grad():
        assert torch.equal(model(LABELS, features), model(LABELS, features))
        model.train()
        assert not torch.equal(model(LABELS, features), model(LABELS, features))


def test_every_weight_learns(transformer: Transformer) -> None:
    """A layer without gradient would be dead weight that nobody notices in a long training."""
    features = torch.randn(3, 29, transformer.config.latent_channels)
    transformer.train()(LABELS, features).log_softmax(-1)[..., 0].sum().backward()
    silent = [name for name, p in transformer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@torch.no_grad()
def test_a_fresh_model_predicts_about_evenly(make_transformer: MakeTransformer) -> None:
    """Training has to start at the loss log V; a wrong initialisation shows here and not after a day."""
    config = make_transformer().config
    logits = Transformer(config).eval()(LABELS, torch.randn(3, 29, config.latent_channels))
    assert float((logits.log_softmax(-1) + torch.tensor(float(config.vocabulary)).log()).abs().max()) < 0.05


def test_sampling_gives_whole_pyramids(transformer: Transformer, quantizer: MultiScaleQuantizer) -> None:
    """The images in a training log come from here; the same seed has to give the same ones at every step."""
    sampling = Sampling(guidance=0.0, top_k=8)
    maps, again, other = (
        sample(transformer, quantizer, LABELS, sampling, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert [tuple(token_map.shape) for token_map in maps] == [(3, n) for n in transformer.schedule.token_counts]
    assert all(torch.equal(a, b) for a, b in zip(maps, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(maps, other, strict=True))


@torch.no_grad()
def test_greedy_sampling_takes_the_likeliest_tokens(transformer: Transformer, quantizer: MultiScaleQuantizer) -> None:
    """Sampled tokens have to come from the distribution that teacher forcing gives them, position for position."""
    maps = sample(transformer, quantizer, LABELS, Sampling(guidance=0.0, top_k=1))
    logits = transformer(LABELS, quantizer.scale_features(maps))
    assert torch.equal(torch.cat(maps, dim=1), logits.argmax(-1))
    cold = sample(transformer, quantizer, LABELS, Sampling(guidance=0.0, temperature=0.0))
    assert all(torch.equal(a, b) for a, b in zip(maps, cold, strict=True))


@torch.no_grad()
def test_sampling_is_guided_and_continues_from_known_scales(
    transformer: Transformer, quantizer: MultiScaleQuantizer
) -> None:
    """A refiner would learn on other images than those that people generate."""
    known = sample(transformer, quantizer, LABELS, Sampling(guidance=0.0, top_k=8))[:2]
    maps = sample(transformer, quantizer, LABELS, Sampling(2.0, top_k=1, coarse_guidance=1.0), known=known)
    assert all(torch.equal(a, b) for a, b in zip(known, maps[:2], strict=True))
    features, nothing = quantizer.scale_features(maps), torch.tensor(transformer.config.labels).expand_as(LABELS)
    logits = 3.0 * transformer(LABELS, features) - 2.0 * transformer(nothing, features)
    begin = transformer.schedule.offsets[2]
    assert torch.equal(torch.cat(maps[2:], dim=1), logits[:, begin:].argmax(-1))


@torch.no_grad()
def test_sampling_moves_away_from_a_guide_as_generation_does(
    transformer: Transformer, quantizer: MultiScaleQuantizer
) -> None:
    """A refiner would learn on other images than those of a bundle with a guide."""
    torch.manual_seed(3)
    guide = Transformer(replace(transformer.config, depth=1)).eval()
    for parameter in guide.parameters():
        parameter.normal_(std=0.3)
    maps = sample(transformer, quantizer, LABELS, Sampling(2.0, top_k=1, coarse_guidance=1.0), guide=guide)
    features, nothing = quantizer.scale_features(maps), torch.tensor(guide.config.labels).expand_as(LABELS)
    model, weaker = transformer(LABELS, features).numpy(), guide(nothing, features).numpy()
    drawn = torch.cat(maps, dim=1).numpy()
    assert np.array_equal(drawn, guide_away(model, weaker, 2.0).argmax(-1))
    assert not np.array_equal(drawn, model.argmax(-1))
