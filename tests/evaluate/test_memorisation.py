"""Memorisation: copies are found in whatever disguise, new people are left alone, and one can check both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.centring import centred
from medvar_engine.encoders.image_source import ArrayImages, PreparedImages, windowed
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.planted_copies import COPIES, plant
from medvar_engine.evaluate.memorisation import (
    WINDOWS,
    Calibration,
    alarm_threshold,
    calibrate,
    compare_images,
    copy_threshold,
    find_planted_copies,
)
from medvar_engine.memorisation import neighbours
from medvar_engine.memorisation.gate import Gate
from medvar_engine.memorisation.neighbours import nearest
from medvar_engine.types import FloatArray

Slices = Callable[..., FloatArray]


class Pixels:
    """Features that are the pixels: mirrored images are as far as can be."""

    name, sha256, dimension = "pixels", "b" * 64, 32 * 32

    def encode(self, images: FloatArray) -> FloatArray:
        return np.ascontiguousarray(images.reshape(len(images), -1)) + np.float32(1)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


class Spectrum:
    """Strengths of the coarse waves in an image, which a shift and a window hardly change."""

    name, sha256, dimension = "spectrum", "c" * 64, 12 * 23

    def encode(self, images: FloatArray) -> FloatArray:
        waves = np.abs(np.fft.fft2(images - images.mean(axis=(1, 2), keepdims=True)))
        coarse = np.roll(waves, 11, axis=1)[:, :23, :12]
        return np.sqrt(coarse).reshape(len(images), -1).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def patients(dataset: SliceDataset) -> list[str]:
    return [row.patient for row in dataset.rows]


@pytest.fixture(scope="module")
def calibration(
    training: SliceDataset, held_out: SliceDataset, tmp_path_factory: pytest.TempPathFactory
) -> Calibration:
    train, test = PreparedImages(training), PreparedImages(held_out)
    cache = tmp_path_factory.mktemp("cache")
    return calibrate(Spectrum(), train, patients(training), test, patients(held_out), cache)


def test_the_nearest_is_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for large sets, which are compared in blocks: the nearest may be in any of them."""
    monkeypatch.setattr(neighbours, "QUERIES", 3)
    monkeypatch.setattr(neighbours, "TRAINING", 4)
    rng = np.random.default_rng(0)
    queries, training = rng.normal(size=(8, 5)), rng.normal(size=(11, 5))
    training[7] = 3 * queries[2]
    distances, numbers = nearest(queries, training)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, training)]
    every = np.linalg.norm(unit[0][:, None] - unit[1], axis=2)
    np.testing.assert_array_equal(numbers, every.argmin(axis=1))
    np.testing.assert_allclose(distances, every.min(axis=1), atol=1e-3)
    assert numbers[2] == 7


def test_one_person_of_many_slices_does_not_set_the_threshold() -> None:
    """Breaks for rare kinds of slice: a threshold set by the many brains would flag every new spine."""
    distances = np.concatenate([np.linspace(1, 2, 1000), np.linspace(0.5, 0.9, 41)])
    names = ["many"] * 1000 + ["few"] * 41
    assert alarm_threshold(distances, names) == pytest.approx(0.54)  # a tenth of the few, and none of the many
    shuffled = np.random.default_rng(0).permutation(len(names))
    assert alarm_threshold(distances[shuffled], [names[i] for i in shuffled]) == pytest.approx(0.54)
    crowd = [f"person {i}" for i in range(101)]
    assert alarm_threshold(np.arange(101.0), crowd) == 5


def test_planted_copies_are_found_and_new_people_are_not(calibration: Calibration, training: SliceDataset) -> None:
    """Breaks for patients: a gate that misses copies is worse than none, and one that always rings is switched off."""
    found = find_planted_copies(calibration.gate, PreparedImages(training), count=60)
    assert set(found) == set(COPIES)
    for kind in ("same", "mirrored", "shifted", "rewindowed", "noisy", "blurred"):
        assert found[kind].value >= 0.95, found
    assert calibration.held_out.share <= 0.05
    assert len(calibration.false_alarms) == 8
    assert np.mean(list(calibration.false_alarms.values())) <= 0.1


def test_the_gate_names_the_original(calibration: Calibration, training: SliceDataset, slices_of: Slices) -> None:
    """Breaks for the report's flagged pairs: the picture beside a copy must be what it was copied from."""
    chosen = [30, 4, 61]
    copies = plant(training.batch(chosen)[:, 0], "mirrored", 0)
    check = calibration.gate.check(np.concatenate([slices_of(99, 2), copies]))
    assert check.neighbours[2:].tolist() == chosen
    assert check.flagged.tolist() == [False, False, True, True, True]
    assert [check.patients[2 + i] for i in range(3)] == [training.rows[i].patient for i in chosen]
    assert check.share == pytest.approx(0.6)
    assert sorted(check.pairs().tolist()) == [[2, 30], [3, 4], [4, 61]]
    assert (np.diff(check.distances[check.pairs()[:, 0]]) >= 0).all()


def test_a_mirrored_copy_is_found_by_any_encoder(training: SliceDataset) -> None:
    """Breaks for encoders of others, to which a mirrored body is another one."""
    originals = training.batch(range(6))[:, 0]
    gate = Gate(Pixels(), Pixels().encode(centred(originals)), list("aabbcc"), threshold=0.3)
    for axes in ((1,), (2,), (1, 2)):
        assert gate.check(np.flip(originals, axes)).flagged.all()
    assert not gate.check(np.transpose(originals, (0, 2, 1))).flagged.any()
    assert gate.check(originals[:0]).flagged.shape == (0,)
    assert gate.check(originals[:0]).share == 0


def test_a_shifted_copy_comes_back_to_where_it_was(slices_of: Slices) -> None:
    """Breaks for shifted copies, which few encoders take for the same image."""
    image = np.full((1, 40, 40), -1, np.float32)
    image[0, 4:36, 4:36] = slices_of(7, 1)[0]
    shifted = np.roll(image, (3, -2), axis=(1, 2))
    np.testing.assert_array_equal(centred(shifted), centred(image))
    np.testing.assert_array_equal(centred(centred(image)), centred(image))
    np.testing.assert_allclose(centred(shifted * 0.5 + 0.2), centred(image) * 0.5 + 0.2, atol=1e-6)
    flat = np.zeros((2, 5, 7), np.float32)
    np.testing.assert_array_equal(centred(flat), flat)


def test_many_images_are_checked_as_few_are(calibration: Calibration, slices_of: Slices, tmp_path: Path) -> None:
    """Breaks for whoever generates in batches: what is flagged must not depend on them, nor on the cache."""
    images = slices_of(50, 11)
    whole = calibration.gate.check(images)
    cached = compare_images(calibration.gate, ArrayImages(images), tmp_path)
    np.testing.assert_allclose(cached.distances, whole.distances, atol=1e-5)
    np.testing.assert_array_equal(cached.neighbours, whole.neighbours)
    for i, image in enumerate(images):
        near = calibration.gate.risk(image)
        assert (near.distance, near.flagged) == (float(whole.distances[i]), bool(whole.flagged[i]))
    beyond = np.where(images[0] > 0.5, 1.2, images[0])  # as decoders may give
    assert calibration.gate.risk(beyond) == calibration.gate.risk(np.minimum(beyond, 1))


def test_what_a_window_clipped_is_found_in_that_window(calibration: Calibration, training: SliceDataset) -> None:
    """Breaks for copies in a narrow window, which have lost what is brightest or darkest for good."""
    gate, count = calibration.gate, len(training)
    assert len(gate.embeddings) == count * (1 + len(WINDOWS))
    only = replace(gate, embeddings=gate.embeddings[:count])
    chosen = [30, 4, 61]
    originals = training.batch(chosen)[:, 0]
    for window in WINDOWS:
        clipped = windowed(originals, *window)
        with_windows, without = gate.check(clipped), only.check(clipped)
        assert (with_windows.distances < without.distances).all()
        assert with_windows.neighbours.tolist() == chosen
        assert with_windows.patients == tuple(training.rows[i].patient for i in chosen)


def test_a_comparison_that_would_mean_nothing(slices_of: Slices, tmp_path: Path) -> None:
    """Breaks for data split by slice: the same person on both sides makes every copy look normal."""
    some, none = ArrayImages(slices_of(0, 4)), ArrayImages(np.zeros((0, 32, 32), np.float32))
    with pytest.raises(MedvarError, match="ann is both trained on and held out"):
        calibrate(Pixels(), some, ["ann"] * 4, some, ["bob", "ann", "bob", "bob"], tmp_path)
    with pytest.raises(MedvarError, match="test_fraction"):
        calibrate(Pixels(), some, ["ann"] * 4, none, [], tmp_path)
    with pytest.raises(MedvarError, match="3 names"):
        calibrate(Pixels(), some, ["ann"] * 3, some, ["bob"] * 4, tmp_path)
    with pytest.raises(MedvarError, match="threshold"):
        Gate(Pixels(), Pixels().encode(slices_of(0, 4)), ["ann"] * 4, float("nan"))


def test_one_held_out_person_does_not_judge_herself(slices_of: Slices, tmp_path: Path) -> None:
    """Breaks for small sets: the only person held out would set the threshold by which she is judged."""
    train, test = ArrayImages(slices_of(0, 4)), ArrayImages(slices_of(1, 4))
    calibration = calibrate(Pixels(), train, ["ann"] * 4, test, ["bob"] * 4, tmp_path)
    expected = (calibration.held_out.distances < calibration.copies).mean()
    assert calibration.false_alarms == {"bob": expected}


def test_the_threshold_is_no_larger_than_copies_need() -> None:
    """Breaks for new people: of few held out, chance would decide how many of their slices are withheld."""
    kinds = [np.linspace(0, 0.1, 101, dtype=np.float32), np.linspace(0, 0.2, 101, dtype=np.float32)]
    threshold = copy_threshold(kinds)
    assert threshold == pytest.approx(0.19)
    for distances in kinds:
        assert (distances < threshold).mean() >= 0.95
    assert copy_threshold([np.zeros(3, np.float32)]) > 0
    assert copy_threshold([np.full(3, 2, np.float32)]) == 2


def test_the_smaller_threshold_counts(calibration: Calibration, held_out: SliceDataset) -> None:
    """Breaks for both sides: copies that pass, or new people who do not, without a word."""
    alarms = alarm_threshold(calibration.held_out.distances, patients(held_out))
    assert calibration.gate.threshold == min(calibration.copies, alarms)


def test_planted_copies_are_what_they_are_called(slices_of: Slices) -> None:
    """Breaks for the promise: a disguise that changes nothing would be found by anything."""
    images = slices_of(2, 3, 128)
    for kind in COPIES:
        copies = plant(images, kind, 3)
        assert (copies.shape, copies.dtype) == (images.shape, np.float32)
        assert np.abs(copies).max() <= 1
        changed = np.abs(copies - images).mean(axis=(1, 2))
        assert (changed == 0).all() if kind == "same" else (changed > 0.001).all(), kind
        np.testing.assert_array_equal(copies, plant(images, kind, 3))
