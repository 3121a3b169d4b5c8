"""The split: by patient, stratified, the same each time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvar_engine.data.split import split_patients
from medvar_engine.errors import MedvarError

CELL = st.tuples(st.sampled_from(["CT", "MR"]), st.sampled_from(["brain", "chest", "heart"]))
PATIENTS = st.dictionaries(st.text(min_size=1, max_size=4), st.sets(CELL, min_size=1, max_size=3), max_size=25)


@settings(deadline=None)
@given(PATIENTS, st.floats(0, 0.9), st.integers(0, 5))
def test_every_patient_has_one_side_and_every_cell_is_trained_on(
    cells: dict[str, set[tuple[str, str]]], fraction: float, seed: int
) -> None:
    """Breaks for every figure reported: a patient on both sides makes memorising look like skill."""
    split, _ = split_patients(cells, test_fraction=fraction, seed=seed)
    assert set(split) == set(cells)
    assert set(split.values()) <= {"train", "test"}
    for cell in {one for patient in cells.values() for one in patient}:
        assert any(split[patient] == "train" for patient in cells if cell in cells[patient])
    backwards = dict(reversed(list(cells.items())))
    assert split_patients(backwards, test_fraction=fraction, seed=seed)[0] == split


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=4), CELL, max_size=25), st.floats(0.01, 0.9), st.integers(0, 5))
def test_every_cell_of_two_is_tested(cells: dict[str, tuple[str, str]], fraction: float, seed: int) -> None:
    """Breaks for rare regions: without a test patient nobody learns how bad they are."""
    split, remarks = split_patients(
        {patient: [cell] for patient, cell in cells.items()}, test_fraction=fraction, seed=seed
    )
    for cell in set(cells.values()):
        members = [patient for patient in cells if cells[patient] == cell]
        tested = sum(split[patient] == "test" for patient in members)
        if len(members) == 1:
            assert tested == 0
            assert any(" ".join(cell) in remark and "one patient only" in remark for remark in remarks)
        else:
            assert tested == min(max(1, round(fraction * len(members))), len(members) - 1)


def test_holdout_overrides() -> None:
    """Breaks for published test sets: exactly those named are held out."""
    cells = {name: [("CT", "chest")] for name in "abcd"}
    split, remarks = split_patients(cells, holdout=["b", "d"], test_fraction=0.5)
    assert split == {"a": "train", "b": "test", "c": "train", "d": "test"}
    assert not remarks
    _, remarks = split_patients({"a": [("CT", "chest")], "b": [("MR", "brain")]}, holdout=["a"])
    assert len(remarks) == 2


def test_bad_input() -> None:
    """Breaks for a typing error in a held-out name, which would leak the patient into training."""
    with pytest.raises(MedvarError, match="zz"):
        split_patients({"a": [("CT", "chest")]}, holdout=["zz"])
    with pytest.raises(MedvarError, match="test_fraction"):
        split_patients({"a": [("CT", "chest")]}, test_fraction=1.5)
