"""What a model is conditioned on: the factors that are asked for, of the slices that there are."""

from __future__ import annotations

from pathlib import Path

from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.train.config import load_config
from medvar_engine.train.stages.transformer_stage import label_space_of

KINDS = [
    Condition("MR", "brain", "axial", "ixi", "T1", 0.3125),
    Condition("MR", "brain", "axial", "ixi", None, None),
    Condition("CT", "chest", "axial", None, None, 0.9375),
]


def labels(factors: str) -> LabelSpace:
    overrides = ["stage=transformer", "data=a", "out=b", f"tokenizer={Path('c')}", f"factors={factors}"]
    return label_space_of(load_config(None, overrides), KINDS)


def test_position_and_contrast_are_learnt_when_requested() -> None:
    """A user would ask for a position in vain, or a model learn names that nobody wanted."""
    assert labels("[modality, position]") == LabelSpace(("CT", "MR"), position=8)
    assert labels("[modality, contrast]") == LabelSpace(("CT", "MR"), contrast=("T1",))
    assert labels("[plane]") == LabelSpace(plane=("axial",))
    space = labels("[modality, region, plane, contrast, position]")
    assert space.sizes == (2, 2, 1, 1, 8)
    assert [space.encode(space.known(kind)) for kind in KINDS] == [(1, 0, 0, 0, 2), (1, 0, 0, 1, 8), (0, 1, 0, 1, 7)]
