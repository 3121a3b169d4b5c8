from __future__ import annotations

from itertools import product

import pytest

from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError

SPACE = LabelSpace(modality=("CT", "MR"), region=("abdomen", "brain", "chest"))


def test_every_condition_has_a_label_of_its_own() -> None:
    """Two conditions would make the same images."""
    conditions = [Condition(m, r) for m, r in product((None, "CT", "MR"), (None, "abdomen", "brain", "chest"))]
    labels = [SPACE.encode(condition) for condition in conditions]
    assert len(set(labels)) == 12
    assert [SPACE.decode(label) for label in labels] == conditions


def test_what_is_left_out_is_the_unconditional_class() -> None:
    """Guidance would push away from a real class instead of from no class."""
    assert SPACE.encode(Condition()) == SPACE.unconditional == (2, 3)
    assert SPACE.encode(Condition(modality="CT")) == (0, 3)
    assert str(Condition()) == "unconditional"
    assert str(Condition("MR", plane="axial")) == "MR axial"


def test_unknown_labels_are_met_with_the_nearest_known_one() -> None:
    """A typing mistake would leave a person guessing what the model knows."""
    with pytest.raises(MedvarError, match=r"Unknown region 'brian'.*mean 'brain'.*abdomen, brain, chest"):
        SPACE.encode(Condition(region="brian"))
    with pytest.raises(MedvarError, match=r"not conditioned on plane.*leave it out"):
        SPACE.encode(Condition(plane="axial"))
    with pytest.raises(MedvarError, match="factor 'organ'"):
        Condition.from_dict({"organ": "liver"})
    with pytest.raises(MedvarError, match="region is a name"):
        Condition.from_dict({"region": 3})  # type: ignore[dict-item]
    with pytest.raises(MedvarError, match="factor 'organ'"):
        LabelSpace.from_dict({"organ": ["liver"]})
    with pytest.raises(MedvarError, match="out of range"):
        SPACE.decode((0, 4))


def test_survives_json() -> None:
    """A bundle's names would get other numbers than in training."""
    assert LabelSpace.from_dict(SPACE.to_dict()) == SPACE
    condition = Condition("MR", "brain", "axial", "ixi")
    assert Condition.from_dict(condition.to_dict()) == condition


def test_label_space_of_data_does_not_depend_on_its_order() -> None:
    """Two preparations of the same data would train incompatible models."""
    conditions = [Condition("MR", "brain"), Condition("CT", "chest"), Condition("CT")]
    assert LabelSpace.of(conditions) == LabelSpace.of(reversed(conditions))
    assert LabelSpace.of(conditions).to_dict() == {"modality": ["CT", "MR"], "region": ["brain", "chest"]}
