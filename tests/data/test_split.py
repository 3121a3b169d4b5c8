"""The split: by patient, stratified, the same each time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvar_engine.data.split import SplitRule, split_patients
from medvar_engine.errors import MedvarError

CELL = st.tuples(st.sampled_from(["CT", "MR"]), st.sampled_from(["brain", "chest", "heart"]))
PATIENTS = st.dictionaries(st.text(min_size=1, max_size=4), st.sets(CELL, min_size=1, max_size=3), max_size=25)


@settings(deadline=None)
@given(PATIENTS, st.floats(0, 0.9), st.integers(0, 5))
def test_every_patient_has_one_side_and_every_slice_type_is_trained_on(
    strata: dict[str, set[tuple[str, str]]], fraction: float, seed: int
) -> None:
    """Breaks for every figure reported: a patient on both sides makes memorising look like skill."""
    split, _ = split_patients(strata, test_fraction=fraction, seed=seed)
    assert set(split) == set(strata)
    assert set(split.values()) <= {"train", "test"}
    for stratum in {one for patient in strata.values() for one in patient}:
        assert any(split[patient] == "train" for patient in strata if stratum in strata[patient])
    backwards = dict(reversed(list(strata.items())))
    assert split_patients(backwards, test_fraction=fraction, seed=seed)[0] == split


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=4), CELL, max_size=25), st.floats(0.01, 0.9), st.integers(0, 5))
def test_every_slice_type_with_two_patients_is_tested(
    strata: dict[str, tuple[str, str]], fraction: float, seed: int
) -> None:
    """Breaks for rare regions: without a test patient nobody learns how bad they are."""
    split, remarks = split_patients(
        {patient: [stratum] for patient, stratum in strata.items()}, test_fraction=fraction, seed=seed
    )
    for stratum in set(strata.values()):
        members = [patient for patient in strata if strata[patient] == stratum]
        tested = sum(split[patient] == "test" for patient in members)
        if len(members) == 1:
            assert tested == 0
            assert any(" ".join(stratum) in remark and "one patient only" in remark for remark in remarks)
        else:
            assert tested == min(max(1, round(fraction * len(members))), len(members) - 1)


def test_holdout_overrides() -> None:
    """Breaks for published test sets: exactly those named are held out."""
    strata = {name: [("CT", "chest")] for name in "abcd"}
    split, remarks = split_patients(strata, holdout=["b", "d"], test_fraction=0.5)
    assert split == {"a": "train", "b": "test", "c": "train", "d": "test"}
    assert not remarks
    _, remarks = split_patients({"a": [("CT", "chest")], "b": [("MR", "brain")]}, holdout=["a"])
    assert len(remarks) == 2


def test_bad_input_is_refused() -> None:
    """Breaks for a typing error in a held-out name, which would leak the patient into training."""
    with pytest.raises(MedvarError, match="zz"):
        split_patients({"a": [("CT", "chest")]}, holdout=["zz"])
    with pytest.raises(MedvarError, match="test_fraction"):
        split_patients({"a": [("CT", "chest")]}, test_fraction=1.5)


@given(PATIENTS, PATIENTS, st.floats(0, 0.9), st.integers(0, 5))
def test_known_patients_keep_their_side(
    first: dict[str, set[tuple[str, str]]], more: dict[str, set[tuple[str, str]]], fraction: float, seed: int
) -> None:
    """Breaks for data that grows: a patient trained on last year must not be tested on this year."""
    known, _ = split_patients(first, test_fraction=fraction, seed=seed)
    split, _ = split_patients({**more, **first}, test_fraction=fraction, seed=seed, known=known)
    assert {patient: split[patient] for patient in known} == known
    assert set(split) == {*first, *more}
    held_out, _ = split_patients({**more, **first}, holdout=first, known=known)
    assert {patient: held_out[patient] for patient in known} == known


def test_new_patients_are_drawn_until_the_share_is_right() -> None:
    """Breaks for data that grows: the test would shrink to nothing of it, or new regions would not be tested."""
    strata = {f"a{n}": [("CT", "chest")] for n in range(10)}
    known, _ = split_patients(strata, test_fraction=0.2)
    strata |= {f"b{n}": [("CT", "chest")] for n in range(10)} | {f"c{n}": [("MR", "brain")] for n in range(5)}
    split, remarks = split_patients(strata, test_fraction=0.2, known=known)
    tested = [patient for patient, side in split.items() if side == "test"]
    assert [sum(patient[0] == letter for patient in tested) for letter in "abc"] == [2, 2, 1]
    assert not remarks


def test_a_split_by_data_set() -> None:
    """Breaks for figures of each data set: a small one beside a large one would have no test patient."""
    rule = SplitRule(0.1, strata=("modality", "region", "dataset"))
    strata = {f"l{n:03}": [("CT", "chest", "large")] for n in range(100)}
    strata |= {f"s{n}": [("CT", "chest", "small")] for n in range(3)}
    split, _ = split_patients(strata, test_fraction=rule.test_fraction, seed=rule.seed)
    assert [sum(split[patient] == "test" for patient in strata if patient[0] == letter) for letter in "ls"] == [10, 1]


def test_the_rule_is_stored_in_the_recipe() -> None:
    """Breaks for appended slices: new patients would be split otherwise than the old ones were."""
    rule = SplitRule(0.25, 7, ("p1", "p2"), ("modality",))
    assert SplitRule.of({"size": 8} | rule.to_dict()) == rule
    assert SplitRule.of({"size": 8}) == SplitRule()
    for wrong in ({"test_fraction": 1.0}, {"seed": -1}, {"strata": ("plane",)}):
        with pytest.raises(MedvarError, match=next(iter(wrong)).split("_")[0][:4]):
            SplitRule(**wrong)  # type: ignore[arg-type]
