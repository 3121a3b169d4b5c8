"""Memorisation: are synthetic images closer to a training slice than slices of new patients are?

Like Dar et al. (arXiv 2307.01148), it compares the distance to training slices with that of slices of held-out
patients. An image that is closer than almost all of these is flagged. The threshold is at most the distance that is
needed to find planted copies: with few held-out patients a threshold from them is imprecise, while any number of copies
can be planted. `find_planted_copies` tests the result with other planted copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from medvar_engine.encoders.image_source import Images
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.planted_copies import COPIES, disturb, plant
from medvar_engine.evaluate.metrics.bootstrap import Estimate, estimate_mean
from medvar_engine.memorisation.edge_maps import edge_map
from medvar_engine.memorisation.gate import MEASURES, Check, Gate, distances
from medvar_engine.memorisation.packed_maps import pack
from medvar_engine.memorisation.projection import Projection
from medvar_engine.types import FloatArray, IntArray

FALSE_ALARMS = 0.03  # share of flagged slices of held-out patients; below the 5 % that new patients may expect, because
# the threshold depends on which patients are held out
FOUND = 0.95  # required share of flagged planted copies of every kind
PLANTED = 150  # number of training slices that are copied for the test
_FOR_THRESHOLD = 1  # seed of the copies that set the threshold; the test uses another seed
TO_SET_IT = 60  # copies of each kind that set the threshold
_FITTED = 1500  # slices that are copied to fit the projection
_TOLD_APART = 6000  # largest number of slices that the projection is fitted to separate
_OF_A_PATIENT = 6  # largest number of held-out slices per patient, so that patients have equal weight
_CHUNK = 256  # images that are read together
_PARTS = ("distances", "neighbours")
_MOVED = {"zoom_by": 0.05, "shift_by": 3.5 / 128}  # half the distance between the views that the gate compares

Progress = Callable[[int, int], None]
"""Called with the number of images compared so far, and the number of all images."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A gate with its threshold, and the distances of slices of held-out patients."""

    gate: Gate
    copies: float  # distance needed to find planted copies, see `copy_threshold`
    held_out: Check
    held_out_patients: tuple[str, ...]  # patient of each held-out slice
    false_alarms: Mapping[str, float]  # share of flagged slices of each, by a gate that is set without that patient


def calibrate(
    training: Images,
    training_patients: Sequence[str],
    held_out: Images,
    held_out_patients: Sequence[str],
    progress: Progress | None = None,
) -> Calibration:
    """The gate of a training set, with a threshold from planted copies and from held-out patients.

    The threshold is the smaller one of `copy_threshold` and `alarm_threshold`. The same slices give the same gate.
    The false alarms of a held-out patient are those of a gate that is set without that patient.

    Args:
        training: slices that the model was trained on.
        training_patients: the patient of each training slice.
        held_out: slices of other patients; at most six per patient are used.
        held_out_patients: the patient of each held-out slice.
        progress: called for every image that is compared.

    Raises:
        MedvarError: when a patient is on both sides, or there are no held-out patients.
    """
    for images, patients in ((training, training_patients), (held_out, held_out_patients)):
        if len(images) != len(patients) or not len(images):
            raise MedvarError(
                f"Memorisation needs slices with the patient of each, but there are {len(images)} slices and "
                f"{len(patients)} names of patients. If there are no held-out patients to compare with, prepare "
                "the data again with a test_fraction."
            )
    if both := sorted(set(training_patients) & set(held_out_patients)):
        raise MedvarError(
            f"Patient {both[0]} is both in the training set and held out, so memorisation cannot be measured. Split by "
            "patient."
        )
    projection = fit_projection(training)
    maps = (edge_map(image) for image in _images(training, np.arange(len(training)), progress))
    index = np.concatenate([pack(one) for one in maps])
    gate = Gate(projection, index, training_patients)
    chosen = _some_of_each(held_out_patients)
    names = [held_out_patients[i] for i in chosen]
    measured = [gate.measure(image) for image in _images(held_out, chosen, progress)]
    values = np.array([one for one, _ in measured], dtype=np.float32)
    copies = [
        np.array([gate.measure(image)[0] for image in planted], dtype=np.float32)
        for _, planted in _planted(training, TO_SET_IT, _FOR_THRESHOLD)
    ]
    setting = _Setting.of(values, names, copies)
    gate = replace(gate, levels=setting.levels, threshold=setting.threshold)
    false_alarms = {}
    for patient in sorted(set(names)):
        own = np.array(names) == patient
        others = _Setting.of(values[~own], [one for one in names if one != patient], copies) if not own.all() else None
        levels, threshold = (others.levels, others.threshold) if others else (setting.levels, setting.copies)
        false_alarms[patient] = float((distances(values[own], levels) < threshold).mean())
    return Calibration(gate, setting.copies, gate.checked(measured), tuple(names), false_alarms)


class _Setting(NamedTuple):
    """The settings of a gate."""

    levels: tuple[float, float]
    copies: float  # distance needed to find planted copies
    threshold: float

    @classmethod
    def of(cls, values: FloatArray, patients: Sequence[str], copies: Sequence[FloatArray]) -> _Setting:
        """Derive the settings from measures ``(M, 2)`` of held-out slices, and those of each kind of copy."""
        # A measure is high where a distance is small: the level is the alarm threshold of its negative.
        whole, part = (max(-alarm_threshold(-values[:, i], patients), 1e-3) for i in range(len(MEASURES)))
        levels = (whole, part)
        needed = copy_threshold([distances(kind, levels) for kind in copies])
        return cls(levels, needed, min(needed, alarm_threshold(distances(values, levels), patients)))


def fit_projection(training: Images) -> Projection:
    """Fit the projection that separates training slices from each other, but not from their copies."""
    rng = np.random.default_rng(0)
    every = np.sort(rng.choice(len(training), min(_TOLD_APART, len(training)), replace=False))
    maps = np.array([edge_map(image) for image in _images(training, every)])
    chosen = np.sort(rng.choice(len(every), min(_FITTED, len(every)), replace=False))
    copies = [edge_map(disturb(image, rng, **_MOVED)) for image in _images(training, every[chosen])]
    return Projection.fit(maps, maps[chosen], np.array(copies))


def copy_threshold(copies: Sequence[FloatArray]) -> float:
    """The distance below which the share `FOUND` of the copies of every kind lies; ``copies`` are their distances."""
    needed = max(float(np.quantile(distances, FOUND, method="higher")) for distances in copies)
    return min(2.0, float(np.nextafter(np.float32(needed), np.float32(2))))


def alarm_threshold(distances: FloatArray, patients: Sequence[str]) -> float:
    """The distance below which the share `FALSE_ALARMS` of held-out slices lies, with equal weight for each patient.

    With equal weight for each slice, the patients with most slices would dominate.
    """
    _, codes, slices = np.unique(list(patients), return_inverse=True, return_counts=True)
    order = np.argsort(distances, kind="stable")
    below = np.cumsum((1 / slices / len(slices))[codes[order]])
    return float(distances[order[np.searchsorted(below, FALSE_ALARMS)]])


def check_images(gate: Gate, images: Images, chosen: IntArray | None = None, progress: Progress | None = None) -> Check:
    """`Gate.check` of all ``images`` or the ``chosen`` ones, read a few at a time."""
    numbers = np.arange(len(images)) if chosen is None else chosen
    parts = [gate.check(image[None]) for image in _images(images, numbers, progress)]
    if not parts:
        return gate.check(images.batch([]))
    far, neighbours = (np.concatenate([getattr(part, name) for part in parts]) for name in _PARTS)
    return Check(far, neighbours, tuple(part.patients[0] for part in parts), gate.threshold)


def find_planted_copies(gate: Gate, training: Images, *, count: int = PLANTED, seed: int = 0) -> dict[str, Estimate]:
    """The share of planted copies that ``gate`` flags, for each kind of `COPIES`, with an interval over patients.

    ``count`` training slices, drawn with ``seed``, are changed and checked. They are not the
    slices that set the threshold. If less than 95 % is found, an image that passes the gate may still be a copy.
    """
    return {
        kind: estimate_mean(gate.check(copies).flagged, [gate.patients[i] for i in chosen])
        for kind, (chosen, copies) in zip(COPIES, _planted(training, count, seed), strict=True)
    }


def _planted(training: Images, count: int, seed: int) -> Iterator[tuple[IntArray, FloatArray]]:
    """For each kind of `COPIES`, the indices of the copied slices, and the copies."""
    chosen = np.sort(np.random.default_rng(seed).choice(len(training), min(count, len(training)), replace=False))
    originals = training.batch(chosen)
    for kind in COPIES:
        yield chosen, plant(originals, kind, seed)


def _some_of_each(patients: Sequence[str]) -> IntArray:
    """Indices of evenly spaced slices, at most `_OF_A_PATIENT` for each patient."""
    numbers: dict[str, list[int]] = {}
    for number, patient in enumerate(patients):
        numbers.setdefault(patient, []).append(number)
    kept = [
        own[i]
        for own in numbers.values()
        for i in np.unique(np.linspace(0, len(own) - 1, _OF_A_PATIENT).round().astype(int))
    ]
    return np.sort(np.array(kept, dtype=np.int64))


def _images(images: Images, numbers: IntArray, progress: Progress | None = None) -> Iterator[FloatArray]:
    """The images ``numbers`` one by one, ``(H, W)``, read a few at a time."""
    for first in range(0, len(numbers), _CHUNK):
        yield from images.batch(numbers[first : first + _CHUNK])
        if progress is not None:
            progress(min(first + _CHUNK, len(numbers)), len(numbers))
