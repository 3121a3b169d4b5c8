from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from medvar_engine.conditions import POSITION_STEPS, Condition, LabelSpace
from medvar_engine.errors import MedvarError

SPACE = LabelSpace(modality=("CT", "MR"), region=("abdomen", "brain", "chest"))


def test_every_condition_has_its_own_label() -> None:
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


def test_the_nearest_known_label_is_suggested() -> None:
    """A typing mistake would leave a person guessing what the model knows."""
    with pytest.raises(MedvarError, match=r"Unknown region 'brian'.*mean 'brain'.*abdomen, brain, chest"):
        SPACE.encode(Condition(region="brian"))
    with pytest.raises(MedvarError, match=r"not conditioned on plane.*Leave it out"):
        SPACE.encode(Condition(plane="axial"))
    with pytest.raises(MedvarError, match="factor 'organ'"):
        Condition.from_dict({"organ": "liver"})
    with pytest.raises(MedvarError, match="region must be a name"):
        Condition.from_dict({"region": 3})  # type: ignore[dict-item]
    with pytest.raises(MedvarError, match="factor 'organ'"):
        LabelSpace.from_dict({"organ": ["liver"]})
    with pytest.raises(MedvarError, match="out of range"):
        SPACE.decode((0, 4))


def test_a_trace_survives_json() -> None:
    """A bundle's names would get other numbers than in training."""
    assert LabelSpace.from_dict(SPACE.to_dict()) == SPACE
    condition = Condition("MR", "brain", "axial", "ixi")
    assert Condition.from_dict(condition.to_dict()) == condition
    whole = Condition("MR", "brain", "axial", "ixi", "T1 after contrast", 0.4)
    assert Condition.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
    space = LabelSpace.of([whole])
    assert LabelSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_label_space_of_data_does_not_depend_on_its_order() -> None:
    """Two preparations of the same data would train incompatible models."""
    conditions = [Condition("MR", "brain"), Condition("CT", "chest"), Condition("CT")]
    assert LabelSpace.of(conditions) == LabelSpace.of(reversed(conditions))
    assert LabelSpace.of(conditions).to_dict() == {"modality": ["CT", "MR"], "region": ["brain", "chest"]}


def test_factors_of_earlier_models_keep_their_numbers() -> None:
    """A bundle or transformer of before would be asked for another class."""
    space = LabelSpace.from_dict({"modality": ["CT", "MR"], "dataset": ["ixi"]})
    assert space.factors == ("modality", "dataset")
    assert space.encode(Condition("MR", dataset="ixi")) == (1, 0)
    more = LabelSpace(("CT", "MR"), dataset=("ixi",), contrast=("T1", "T2"), position=8)
    assert more.factors == ("modality", "dataset", "contrast", "position")
    assert more.sizes == more.unconditional == more.encode(Condition()) == (2, 1, 2, 8)


def test_a_position_has_the_number_of_its_step() -> None:
    """Slices of the feet would be learnt as slices of the head."""
    space = LabelSpace.of([Condition("CT", position=0.3)])
    assert space == LabelSpace(("CT",), position=POSITION_STEPS)
    places = np.linspace(0, 1, 81)
    steps = [space.encode(Condition(position=place))[1] for place in places]
    assert (steps[0], steps[-1]) == (0, POSITION_STEPS - 1)
    assert steps == sorted(steps)
    assert [steps.count(step) for step in range(POSITION_STEPS)] == [10] * 7 + [11]
    for step in range(POSITION_STEPS):
        assert space.encode(space.decode((0, step))) == (0, step)
    assert space.decode((0, POSITION_STEPS)) == Condition("CT")
    assert str(Condition("CT", contrast="venous", position=0.25)) == "CT venous position 0.25"


def test_a_position_between_two_steps() -> None:
    """The share of the nearest other step; none at the ends, where there is no other."""
    space = LabelSpace(("CT", "MR"), position=4)
    found = {
        place: space.neighbouring_step(Condition("MR", position=place))
        for place in (0.0, 0.1, 0.125, 0.2, 0.25, 0.3, 0.5, 1.0)
    }
    assert {place: label for place, (label, _) in found.items()} == {
        0.0: (1, 0), 0.1: (1, 0), 0.125: (1, 0), 0.2: (1, 1), 0.25: (1, 0), 0.3: (1, 0), 0.5: (1, 1), 1.0: (1, 3)
    }  # fmt: skip
    shares = [share for _, share in found.values()]
    np.testing.assert_allclose(shares, [0, 0, 0, 0.3, 0.5, 0.3, 0.5, 0], atol=1e-9)
    assert space.neighbouring_step(Condition("MR")) == ((1, 4), 0.0)


def test_the_same_position_is_the_same_condition() -> None:
    """Equal requests would be computed twice, and traces differ."""
    same = {Condition(position=value) for value in (1, 1.0, np.float32(1), np.int64(1))}
    assert len(same) == 1
    assert type(same.pop().position) is float
    assert str(Condition(position=-0.0)) == "position 0"


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf"), True, "0.4", b"0.4", [0.4], 10**400])
def test_invalid_positions_are_refused(value: object) -> None:
    """A mistyped position would give some other slice."""
    with pytest.raises(MedvarError, match=r"position is the position .* a number from 0 to 1"):
        Condition.from_dict({"position": value})


def test_a_model_without_the_factors_says_so() -> None:
    """A person would believe that the position was honoured."""
    with pytest.raises(MedvarError, match=r"not conditioned on position, so position=0\.4 .*Leave it out"):
        SPACE.encode(Condition(position=0.4))
    with pytest.raises(MedvarError, match="not conditioned on contrast"):
        SPACE.encode(Condition(contrast="T1"))
    assert SPACE.known(Condition("CT", contrast="T1", position=0.4)) == Condition("CT")


@pytest.mark.parametrize("labels", [{"position": 1.5}, {"position": ["a"]}, {"position": -1}, {"position": 10**9}])
def test_invalid_position_labels_are_refused(labels: dict[str, object]) -> None:
    """A damaged bundle would fail at its first image, with a traceback."""
    with pytest.raises(MedvarError, match="labels of position must be a number of steps"):
        LabelSpace.from_dict(labels)
    with pytest.raises(MedvarError, match="labels of region must be a list of names"):
        LabelSpace.from_dict({"region": "brain"})
