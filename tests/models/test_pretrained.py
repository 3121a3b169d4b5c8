"""Starting from a trained transformer: nothing it knows is lost, and new names find a place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.models.pretrained import check_tokenizer, join_labels, start_transformer
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.models.transformer import Transformer, TransformerConfig

BASE = LabelSpace(modality=("CT", "MR"), region=("brain", "chest"))
OWN = LabelSpace(modality=("MR",), region=("ankle", "brain"), dataset=("mine",))


@pytest.fixture
def base() -> Transformer:
    """A small transformer of random weights over `BASE`."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig((1, 2, 3, 4), 128, 4, BASE.sizes, depth=2, width=16, heads=2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def logits(model: Transformer, labels: LabelSpace, *conditions: Condition) -> Tensor:
    features = torch.randn(len(conditions), 29, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.eval()(torch.tensor([labels.encode(condition) for condition in conditions]), features)


@pytest.mark.parametrize("rank", [0, 2])
def test_known_conditions_are_kept(base: Transformer, rank: int) -> None:
    """Old names, also those that the new data lack, and the unconditional class that guidance needs, would be lost."""
    model = start_transformer(base, BASE, OWN, rank)
    joined = join_labels(BASE, OWN)
    asked = [Condition("CT", "chest"), Condition("MR", "brain"), Condition("MR"), Condition()]
    assert torch.equal(logits(model, joined, *asked), logits(base, BASE, *asked))


def test_new_names_start_at_the_mean_of_known_ones(base: Transformer) -> None:
    """A new region would start as noise, and pull the whole network with it."""
    model, joined = start_transformer(base, BASE, OWN, 0), join_labels(BASE, OWN)
    assert joined.region == ("brain", "chest", "ankle")
    assert joined.factors == ("modality", "region", "dataset")
    torch.testing.assert_close(model.labels[1].weight[2], base.labels[1].weight[:2].mean(0))
    assert torch.equal(model.labels[2].weight, torch.zeros(2, 16))  # the base knows nothing of data sets


def test_steps_of_the_base_stay(base: Transformer) -> None:
    """Positions would be counted in other steps than those that the model learnt."""
    other = LabelSpace(modality=("CT", "MR"), position=2)
    new = LabelSpace(modality=("MR",), contrast=("T1",), position=8)
    model, joined = start_transformer(base, other, new, 0), join_labels(other, new)
    assert joined == LabelSpace(modality=("CT", "MR"), contrast=("T1",), position=2)
    asked = [Condition("CT", position=0.6), Condition("MR")]
    assert torch.equal(logits(model, joined, *asked), logits(base, other, *asked))
    assert join_labels(BASE, new).position == 8
    assert start_transformer(base, BASE, new, 2).labels[3].weight.shape == (9, 16)


def test_a_factor_between_others_is_inserted(base: Transformer) -> None:
    """Factors are numbered in a fixed order: a plane would be taken for a region."""
    new = LabelSpace(plane=("axial",))
    other = LabelSpace(modality=("CT", "MR"), dataset=("brain", "chest"))
    model, joined = start_transformer(base, other, new, 0), join_labels(other, new)
    asked = [Condition("CT", dataset="chest"), Condition("MR", plane="axial", dataset="brain")]
    expected = [Condition("CT", dataset="chest"), Condition("MR", dataset="brain")]
    assert torch.equal(logits(model, joined, *asked), logits(base, other, *expected))


def test_with_a_rank_only_new_names_of_the_labels_learn(base: Transformer) -> None:
    """Known regions would drift although only an ankle was shown."""
    model = start_transformer(base, BASE, OWN, 2)
    rows = {name: module.rows.tolist() for name, module in model.named_modules() if hasattr(module, "rows")}
    assert list(rows.values()) == [[2], [0, 1]]
    assert all(parameter.requires_grad for parameter in start_transformer(base, BASE, OWN, 0).parameters())


def test_dropout_can_be_changed(base: Transformer) -> None:
    """Few slices need more of it than the base was trained with."""
    assert start_transformer(base, BASE, OWN, 0, dropout=0.2).blocks[0].attention.dropout == 0.2


def test_a_label_space_of_another_model(base: Transformer) -> None:
    """Names would be taken for others."""
    with pytest.raises(MedvarError, match=r"\(2, 2\) names"):
        start_transformer(base, OWN, OWN, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schedule": (1, 2, 4)}, "sides of the token maps"),
        ({"vocabulary": 64}, "number of codes is 64, the tokenizer's 128"),
        ({"latent_channels": 8}, "channels of the scale features"),
    ],
)
def test_a_tokenizer_of_another_model(change: dict[str, object], says: str) -> None:
    """Tokens of another codebook mean other things: training would start over, or crash inside torch."""
    values: dict[str, object] = {"schedule": (1, 2, 3, 4), "vocabulary": 128, "latent_channels": 4}
    tokenizer = TokenizerConfig(16, (1, 2, 3, 4), 128, 4, (8, 16), res_blocks=1, groups=4, patch=2)
    other = TransformerConfig(**(values | change), labels=(2,), depth=1, width=8, heads=1)  # type: ignore[arg-type]
    with pytest.raises(MedvarError, match=says):
        check_tokenizer(Transformer(other), tokenizer, ("base.safetensors", "tokenizer.safetensors"))
