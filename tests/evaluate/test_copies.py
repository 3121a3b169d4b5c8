"""Memorisation: copies are found in whatever disguise, new patients are left alone, and one can check both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.image_source import ArrayImages, PreparedImages
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.copies import (
    Calibration,
    alarm_threshold,
    calibrate,
    check_images,
    copy_threshold,
    find_planted_copies,
)
from medvar_engine.evaluate.images.planted_copies import COPIES, bend, blur, plant, zoom
from medvar_engine.types import FloatArray

Slices = Callable[..., FloatArray]


def patients(dataset: SliceDataset) -> list[str]:
    return [row.patient for row in dataset.rows]


@pytest.fixture(scope="module")
def calibration(training: SliceDataset, held_out: SliceDataset) -> Calibration:
    train, test = PreparedImages(training), PreparedImages(held_out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medvar_engine.evaluate.copies.TO_SET_IT", 12)
        return calibrate(train, patients(training), test, patients(held_out))


def test_a_patient_with_many_slices_does_not_dominate_the_threshold() -> None:
    """Breaks for rare kinds of slice: a threshold set by the many brains would flag every new spine."""
    distances = np.concatenate([np.linspace(1, 2, 1000), np.linspace(0.5, 0.9, 41)])
    names = ["many"] * 1000 + ["few"] * 41
    assert alarm_threshold(distances, names) == pytest.approx(0.52)  # six of a hundred of the few, and none of the many
    shuffled = np.random.default_rng(0).permutation(len(names))
    assert alarm_threshold(distances[shuffled], [names[i] for i in shuffled]) == pytest.approx(0.52)
    crowd = [f"person {i}" for i in range(101)]
    assert alarm_threshold(np.arange(101.0), crowd) == 3


def test_planted_copies_are_flagged_and_new_patients_are_not(calibration: Calibration, training: SliceDataset) -> None:
    """Breaks for patients: a gate that misses copies is worse than none, and one that always rings is switched off."""
    found = find_planted_copies(calibration.gate, PreparedImages(training), count=24)
    assert set(found) == set(COPIES)
    for kind in COPIES:
        assert found[kind].value >= (0.8 if kind in ("masked", "all of it") else 0.95), (kind, found)
    assert calibration.held_out.share <= 0.05
    assert len(calibration.false_alarms) == 8
    assert np.mean(list(calibration.false_alarms.values())) <= 0.1


def test_the_gate_names_the_original(calibration: Calibration, training: SliceDataset, slices_of: Slices) -> None:
    """Breaks for the report's flagged pairs: the image beside a copy must be what it was copied from."""
    chosen = [30, 4, 61]
    copies = plant(training.batch(chosen)[:, 0], "turned", 0)
    check = calibration.gate.check(np.concatenate([slices_of(99, 2), copies]))
    assert check.neighbours[2:].tolist() == chosen
    assert check.flagged.tolist() == [False, False, True, True, True]
    assert [check.patients[2 + i] for i in range(3)] == [training.rows[i].patient for i in chosen]
    assert check.share == pytest.approx(0.6)
    assert sorted(check.pairs().tolist()) == [[2, 30], [3, 4], [4, 61]]
    assert (np.diff(check.distances[check.pairs()[:, 0]]) >= 0).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda image: np.rot90(image),
        lambda image: np.rot90(image[::-1]),
        lambda image: -image,
        lambda image: zoom(image, 0.75),
        lambda image: zoom(image, 4 / 3),
        lambda image: bend(image, 0.5),
        lambda image: bend(image, 2.0),
        lambda image: blur(image, 2 * len(image) / 128),
    ],
)
def test_the_strongest_changes(
    calibration: Calibration, training: SliceDataset, change: Callable[[FloatArray], FloatArray]
) -> None:
    """Breaks for patients: anybody could walk round the gate with a menu entry of any viewer."""
    originals = training.batch(range(0, len(training), 8))[:, 0]
    copies = np.array([np.clip(change(image), -1, 1) for image in originals], dtype=np.float32)
    assert calibration.gate.check(copies).share >= 0.9


def test_results_do_not_depend_on_the_number_of_images(calibration: Calibration, slices_of: Slices) -> None:
    """Breaks for whoever generates in batches: what is flagged must not depend on them."""
    images = slices_of(50, 11)
    whole = calibration.gate.check(images)
    some = check_images(calibration.gate, ArrayImages(images), np.array([7, 2]))
    np.testing.assert_array_equal(some.distances, whole.distances[[7, 2]])
    np.testing.assert_array_equal(some.neighbours, whole.neighbours[[7, 2]])
    assert check_images(calibration.gate, ArrayImages(images[:0])).share == 0
    for i, image in enumerate(images):
        near = calibration.gate.risk(image)
        assert (near.distance, near.flagged) == (float(whole.distances[i]), bool(whole.flagged[i]))
    beyond = np.where(images[0] > 0.5, 1.2, images[0]).astype(np.float32)  # as decoders may give
    assert calibration.gate.risk(beyond) == calibration.gate.risk(np.minimum(beyond, 1))


def test_a_slice_that_two_patients_have_is_found(calibration: Calibration, training: SliceDataset) -> None:
    """Breaks for data with a patient under many names: each would hide the copies of the others."""
    gate, many = calibration.gate, 40
    doubled = replace(
        gate,
        index=np.concatenate([gate.index, np.repeat(gate.index[5:6], many, axis=0)]),
        patients=[*gate.patients, *(f"again {i}" for i in range(many))],
    )
    assert doubled.check(training.batch([5])[:, 0]).flagged.all()


def test_empty_images_are_not_copies(calibration: Calibration) -> None:
    """Breaks for empty images, whose every measure would be one of noise."""
    flat = np.stack([np.full((32, 32), value, np.float32) for value in (-1, 0, 1)])
    check = calibration.gate.check(flat)
    assert not check.flagged.any()
    assert (check.distances == 2).all()


def test_meaningless_comparisons_are_refused(calibration: Calibration, slices_of: Slices) -> None:
    """Breaks for data split by slice: the same person on both sides makes every copy look normal."""
    some, none = ArrayImages(slices_of(0, 4)), ArrayImages(np.zeros((0, 32, 32), np.float32))
    with pytest.raises(MedvarError, match="ann is both in the training set and held out"):
        calibrate(some, ["ann"] * 4, some, ["bob", "ann", "bob", "bob"])
    with pytest.raises(MedvarError, match="test_fraction"):
        calibrate(some, ["ann"] * 4, none, [])
    with pytest.raises(MedvarError, match="3 names"):
        calibrate(some, ["ann"] * 3, some, ["bob"] * 4)
    with pytest.raises(MedvarError, match="threshold"):
        replace(calibration.gate, threshold=float("nan"))
    with pytest.raises(MedvarError, match="within"):
        calibration.gate.check(np.full((1, 8, 8), np.nan, np.float32))


def test_a_held_out_patient_does_not_influence_her_own_false_alarms(slices_of: Slices) -> None:
    """Breaks for small sets: the only person held out would set the threshold by which she is judged."""
    train, test = ArrayImages(slices_of(0, 4)), ArrayImages(slices_of(1, 4))
    calibration = calibrate(train, ["ann"] * 4, test, ["bob"] * 4)
    expected = (calibration.held_out.distances < calibration.copies).mean()
    assert calibration.false_alarms == {"bob": expected}


def test_the_threshold_is_no_larger_than_copies_need() -> None:
    """Breaks for new patients: of few held out, chance would decide how many of their slices are withheld."""
    kinds = [np.linspace(0, 0.1, 101, dtype=np.float32), np.linspace(0, 0.2, 101, dtype=np.float32)]
    threshold = copy_threshold(kinds)
    assert threshold == pytest.approx(0.19)
    for distances in kinds:
        assert (distances < threshold).mean() >= 0.95
    assert copy_threshold([np.zeros(3, np.float32)]) > 0
    assert copy_threshold([np.full(3, 2, np.float32)]) == 2


def test_the_smaller_threshold_counts(calibration: Calibration) -> None:
    """Breaks for both sides: copies that pass, or new patients who do not, without a word."""
    alarms = alarm_threshold(calibration.held_out.distances, calibration.held_out_patients)
    assert calibration.gate.threshold == min(calibration.copies, alarms)


def test_planted_copies_match_their_names(slices_of: Slices) -> None:
    """Breaks for the promise: a disguise that changes nothing would be found by anything."""
    images = slices_of(2, 3, 128)
    for kind in COPIES:
        copies = plant(images, kind, 3)
        assert (copies.shape, copies.dtype) == (images.shape, np.float32)
        assert np.abs(copies).max() <= 1
        changed = np.abs(copies - images).mean(axis=(1, 2))
        if kind == "same":
            assert (changed == 0).all()
        elif kind == "masked":  # a mask may be empty, or lie where the slice is dark
            assert (changed > 0.0001).any()
        else:
            assert (changed > 0.0001).all(), kind
        np.testing.assert_array_equal(copies, plant(images, kind, 3))
