"""Which slices are in a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from invented_facts import invented_facts
from numpy.typing import NDArray

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import ShardWriter
from medvar_engine.errors import MedvarError
from medvar_engine.train.batches import BalancedSampler, BatchDraw, spread
from medvar_engine.train.config_sections import DataSettings

DRAWS = 20_000
People = list[tuple[str, str, list[float | None]]]
"""Patient, region, and the position of each slice."""


@pytest.fixture
def make_slices(tmp_path: Path) -> Callable[[People], SliceDataset]:
    """Slices of these people, in their order."""

    def make(people: People) -> SliceDataset:
        with ShardWriter(tmp_path / "slices", 8) as writer:
            for patient, region, positions in people:
                for position in positions:
                    facts = invented_facts(patient, modality="MR", region=region, position=position)
                    writer.add(np.zeros((1, 8, 8), np.uint16), [facts])
            writer.finish(dict.fromkeys(writer.strata, "train"))
        return SliceDataset(tmp_path / "slices", "train")

    return make


def shares(slices: SliceDataset, **settings: float) -> NDArray[np.float64]:
    """How often each slice is drawn, as a fraction of all draws."""
    given = {"balance": 0.0, "most_repeats": 1e6} | settings
    drawn = BalancedSampler(slices, DataSettings(**given)).draw(DRAWS, np.random.default_rng(0))
    return np.bincount(drawn, minlength=len(slices)) / DRAWS


TWO_TYPES: People = [
    ("many", "brain", [None] * 12),
    ("few", "brain", [None] * 3),
    ("rare", "spine", [None] * 5),
]


def test_rare_types_are_drawn_as_requested(make_slices: Callable[[People], SliceDataset]) -> None:
    """A model of nine tenths chest would hardly see a brain; or the same brain all the time."""
    slices = make_slices(TWO_TYPES)
    for balance, expected in ((0.0, 0.25), (1.0, 0.5)):
        assert shares(slices, balance=balance)[15:].sum() == pytest.approx(expected, abs=0.02)
    limited = shares(slices, balance=1.0, most_repeats=2)
    assert limited[15:].mean() / limited[:15].mean() == pytest.approx(2, rel=0.08)


@pytest.mark.parametrize(
    ("patient_balance", "few", "rare"), [(0.0, 3 / 15, 5 / 20), (0.5, 1 / 3, 0.301), (1.0, 1 / 2, 1 / 3)]
)
def test_a_patient_with_many_slices_does_not_stand_for_all(
    make_slices: Callable[[People], SliceDataset], patient_balance: float, few: float, rare: float
) -> None:
    """One scan with hundreds of slices would be most of its slice type, and of the whole training."""
    found = shares(make_slices(TWO_TYPES), patient_balance=patient_balance)
    assert found[12:15].sum() / found[:15].sum() == pytest.approx(few, abs=0.02)
    assert found[15:].sum() == pytest.approx(rare, abs=0.02)  # √5 / (√12 + √3 + √5) = 0.301


def test_a_patient_counts_in_each_slice_type(make_slices: Callable[[People], SliceDataset]) -> None:
    """Otherwise a patient with a rare slice beside many common ones would hardly be drawn for it."""
    slices = make_slices([("both", "brain", [None] * 9), ("both", "spine", [None]), ("other", "spine", [None])])
    found = shares(slices, patient_balance=1.0)
    assert found[9] == pytest.approx(1 / 3, abs=0.02)
    equal = shares(slices, patient_balance=1.0, balance=1.0)
    assert equal[9:].sum() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("most_repeats", [1.2, 8.0])
def test_the_defaults_balance_slice_types_by_their_slices(
    make_slices: Callable[[People], SliceDataset], most_repeats: float
) -> None:
    """Runs of before could not be repeated."""
    sizes = np.array([12] * 12 + [3] * 3 + [5] * 5)
    slices = make_slices([("a", "brain", [None] * 12), ("b", "chest", [0.01] * 3), ("c", "spine", [None] * 5)])
    rates = sizes**-0.5
    expected = np.minimum(rates, rates.min() * most_repeats)
    assert shares(slices, balance=0.5, most_repeats=most_repeats) == pytest.approx(expected / expected.sum(), abs=0.01)


def test_no_slice_is_repeated_too_often(make_slices: Callable[[People], SliceDataset]) -> None:
    """The only slice of a patient would be learned by heart."""
    slices = make_slices([("many", "brain", [None] * 60), ("one", "brain", [None])])
    assert shares(slices, patient_balance=1.0)[60] == pytest.approx(0.5, abs=0.02)
    limited = shares(slices, patient_balance=1.0, most_repeats=3)
    # Weights: 60 of 1/60 and one of 1, on average 2/61, so the limit is 6/61.
    assert limited[60] == pytest.approx((6 / 61) / (1 + 6 / 61), rel=0.05)


def test_ends_of_a_scan_can_be_left_out(make_slices: Callable[[People], SliceDataset]) -> None:
    """The outermost sagittal slices of a chest show an arm; single slices have no position and stay."""
    slices = make_slices([("volume", "chest", [0.05, 0.1, 0.5, 0.9, 0.95]), ("single", "chest", [None])])
    assert np.flatnonzero(shares(slices, central=0.8)).tolist() == [1, 2, 3, 5]
    assert np.flatnonzero(shares(slices)).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_type_that_is_left_out_does_not_count(make_slices: Callable[[People], SliceDataset]) -> None:
    """Its size would otherwise distort the shares of the others."""
    slices = make_slices([("ends", "chest", [0.01]), ("volume", "brain", [*[0.01] * 16, *[0.5] * 4]), *TWO_TYPES])
    found = shares(slices, patient_balance=1.0, central=0.5)
    patients = [found[:17].sum(), found[17:21].sum(), found[21:33].sum(), found[33:36].sum(), found[36:].sum()]
    assert patients == pytest.approx([0, 0.25, 0.25, 0.25, 0.25], abs=0.02)


def test_slices_are_needed(make_slices: Callable[[People], SliceDataset]) -> None:
    """An error in words, not a division by zero."""
    with pytest.raises(MedvarError, match=r"central 50% of its scan.*larger value of central"):
        BalancedSampler(make_slices([("ends", "chest", [0.01, 0.99])]), DataSettings(central=0.5))


def test_parts_divide_a_batch_and_its_further_slices(make_slices: Callable[[People], SliceDataset]) -> None:
    """Micro-batches would repeat slices, or learn other scales from them than the whole batch does."""
    sampler = BalancedSampler(make_slices(TWO_TYPES), DataSettings())
    whole, _ = BatchDraw(sampler, 4, 1, 0, further=6)(5, 0)
    parts = [BatchDraw(sampler, 4, 2, 0, further=6)(5, part)[0] for part in (0, 1)]
    assert [len(part) for part in parts] == [5, 5]
    assert np.concatenate([part[:2] for part in parts]).tolist() == whole[:4].tolist()
    assert np.concatenate([part[2:] for part in parts]).tolist() == whole[4:].tolist()


def test_evenly_spaced_indices() -> None:
    """A validation uses slices from the whole table."""
    assert spread(10, 4).tolist() == [0, 3, 6, 9]
    assert spread(3, 10).tolist() == [0, 1, 2]
