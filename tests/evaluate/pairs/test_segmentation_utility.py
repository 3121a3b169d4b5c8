"""U-Nets that learn from real pairs, both, or synthetic pairs alone; and learning curves."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from tiny_pairs import STRUCTURES, make_pairs, synthetic_of

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.learning_curve import patient_counts, rows_of_patients
from medvar_engine.evaluate.pairs.segmentation_utility import (
    SegmentationUtility,
    dice_by_patient,
    measure_segmentation,
)
from medvar_engine.evaluate.report.utility_section import utility_page


@pytest.fixture(scope="module")
def useful(pair_slices: Path) -> SegmentationUtility:
    return measure_segmentation(synthetic_of(make_pairs(40, 50)), pair_slices, steps=40, seeds=1, patients=())


def test_useful_pairs_are_distinguished_from_useless_ones(useful: SegmentationUtility, pair_slices: Path) -> None:
    """Pairs whose masks have nothing to do with their images would be sold as training data."""
    assert (useful.task, useful.structures) == ("segmentation", STRUCTURES)
    assert set(useful.dice) == {"real", "real and synthetic", "synthetic"}
    assert all((figure.value or 0) > 0.7 for figure in useful.dice.values()), useful.dice
    mixed = make_pairs(40, 50)
    mixed[:, 1] = np.roll(mixed[:, 1], 1, axis=0)
    useless = measure_segmentation(synthetic_of(mixed), pair_slices, steps=40, seeds=1)
    assert (useless.dice["synthetic"].value or 0) < (useful.dice["synthetic"].value or 0) - 0.15
    assert useless.curve == ()


def test_learning_curve(useful: SegmentationUtility) -> None:
    """Nobody could see with how many patients synthetic pairs help; the image would lack a number."""
    assert [one.patients for one in useful.curve] == [1, 2, 4, 5]
    assert useful.curve[-1].metrics["real"] == useful.dice["real"]
    page = utility_page(useful, "a model")
    assert "<svg" in page
    assert "Dice by training patients" in page
    for one in useful.curve:
        assert f"{one.metrics['real'].value:.3g}" in page
    json.loads(json.dumps(asdict(useful), allow_nan=False))


def test_mismatched_pairs_are_refused(pair_slices: Path) -> None:
    """A segmenter would learn that 1 is a liver here and a spleen there."""
    pairs = make_pairs(4, 1)
    with pytest.raises(MedvarError, match=r"makes masks of bar, square, but those in .* show square, bar"):
        measure_segmentation(synthetic_of(pairs, ("bar", "square")), pair_slices)
    with pytest.raises(MedvarError, match="images without masks"):
        measure_segmentation(replace(synthetic_of(pairs), masks=None), pair_slices)
    with pytest.raises(MedvarError, match="must be from 1 to 5, but is 6"):
        measure_segmentation(synthetic_of(pairs), pair_slices, patients=[6])


def test_slices_without_masks_are_refused(prepared: object, tmp_path: Path) -> None:
    """An hour of training would end in a traceback."""
    data = prepared(tmp_path / "slices", ["ct1", "ct2", "ct3"], size=16)  # type: ignore[operator]
    with pytest.raises(MedvarError, match=r"have none\. Prepare them with --masks"):
        measure_segmentation(synthetic_of(make_pairs(4, 1)), data)


def test_dice_is_of_whole_patients() -> None:
    """As nnU-Net counts: a structure that only the network shows counts as 0, and one that nobody shows not at all."""
    counts = np.zeros((3, 3, 3), dtype=np.int64)  # slices, structures: both, found, real
    counts[0, 0], counts[1, 0] = (10, 10, 20), (0, 10, 0)  # patient a: 20 / 40
    counts[2, 1] = (0, 5, 0)  # patient b: invented
    np.testing.assert_array_equal(
        dice_by_patient(counts, ["a", "a", "b"]), [[0.5, np.nan, np.nan], [np.nan, 0, np.nan]]
    )


def test_patients_are_drawn_by_seed() -> None:
    """Slices of a patient would be on both sides of a number, or every seed would learn from the same patients."""
    patients = [name for name in "abcdef" for _ in range(3)]
    few, more = (set(rows_of_patients(patients, count, 1).tolist()) for count in (2, 4))
    assert len(few) == 6
    assert few < more
    assert len({tuple(rows_of_patients(patients, 2, seed)) for seed in range(8)}) > 1
    assert patient_counts(6) == (1, 2, 4, 6)
    assert patient_counts(6, [3]) == (3, 6)
    assert patient_counts(1) == (1,)


def test_the_structures_of_the_slices_are_known(pair_slices: Path) -> None:
    assert [one.name for one in SliceDataset(pair_slices, "train").structures] == list(STRUCTURES)
