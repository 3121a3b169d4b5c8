"""Memorisation: are synthetic images nearer to a training slice than slices of new patients are?

As Dar et al. (arXiv 2307.01148): nearness to training slices, against that of slices of patients held out from
training. What is nearer than nearly all of these is flagged; but no farther than it takes to find copies, which are
planted for that. Of few patients held out a threshold is rough, and copies there are as many as one plants. Whether
flagging works is seen by other copies, see `find_planted_copies`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medvar_engine.encoders.image_source import Images
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.planted_copies import COPIES, disturb, plant
from medvar_engine.evaluate.metrics.bootstrap import Estimate, estimate_mean
from medvar_engine.memorisation.edge_maps import edge_map
from medvar_engine.memorisation.gate import MEASURES, Check, Gate
from medvar_engine.memorisation.projection import Projection
from medvar_engine.types import FloatArray, IntArray

FALSE_ALARMS = 0.05  # share of slices of new patients that may be flagged
FOUND = 0.95  # share of planted copies of every kind that is to be flagged
PLANTED = 200  # training slices of which copies are planted
_FOR_THRESHOLD = 1  # seed of the copies that set it; those that are reported are of another
TO_SET_IT = 100  # copies of each kind that set it
_FITTED = 1500  # slices of which copies are made to find the projection
_TOLD_APART = 6000  # slices that it must tell apart, at most
_OF_A_PATIENT = 10  # held-out slices that are looked at, at most: every patient counts alike
_CHUNK = 256  # images read at a time
_PARTS = ("distances", "neighbours")
_MOVED = {"zoom_by": 0.05, "shift_by": 3.5 / 128}  # half a step between the views that the gate looks at
_STILL = {"zoom_by": 0.015, "shift_by": 1 / 128}

Progress = Callable[[int, int], None]
"""Called with how many images have been looked at, and how many there are."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A gate, and what slices of new patients measured by it."""

    gate: Gate
    copies: float  # the distance that it takes to find planted copies, see `copy_threshold`
    held_out: Check
    held_out_patients: tuple[str, ...]  # whose each of these slices is

    @property
    def false_alarms(self) -> Mapping[str, float]:
        """Share of each held-out patient's slices that are flagged when the threshold is set without that patient.

        This is what a new patient must expect.
        """
        patients = np.array(self.held_out_patients)
        distances = self.held_out.distances
        shares = {}
        for patient in sorted(set(self.held_out_patients)):
            own = patients == patient
            others = alarm_threshold(distances[~own], patients[~own].tolist()) if not own.all() else self.copies
            shares[patient] = float((distances[own] < min(self.copies, others)).mean())
        return shares


def calibrate(
    training: Images,
    training_patients: Sequence[str],
    held_out: Images,
    held_out_patients: Sequence[str],
    progress: Progress | None = None,
) -> Calibration:
    """The gate of a training set, its threshold set by planted copies, and by patients who are not in it.

    It is the smaller one of `copy_threshold` and `alarm_threshold`. The same slices give the same gate.

    Args:
        training: slices that the model was trained on.
        training_patients: whose each of them is.
        held_out: slices of other patients, of each of whom at most ten are looked at.
        held_out_patients: whose each of these is.
        progress: told of every image that is looked at.

    Raises:
        MedvarError: when a patient is on both sides, or nobody is held out.
    """
    for images, patients in ((training, training_patients), (held_out, held_out_patients)):
        if len(images) != len(patients) or not len(images):
            raise MedvarError(
                f"Memorisation needs slices, and whose each is, but there are {len(images)} slices and {len(patients)} "
                "names. Without patients held out from training there is nothing to compare with; prepare the data "
                "again with a test_fraction."
            )
    if both := sorted(set(training_patients) & set(held_out_patients)):
        raise MedvarError(
            f"Patient {both[0]} is both trained on and held out; nothing can be said of memorisation. Split by patient."
        )
    projection = fit_projection(training)
    maps = (edge_map(image) for image in _images(training, np.arange(len(training)), progress))
    index = np.concatenate([projection.index(one[None]) for one in maps])
    gate = Gate(projection, index, training_patients)
    chosen = _some_of_each(held_out_patients)
    whose = [held_out_patients[i] for i in chosen]
    measured = np.array([gate.measure(image)[0] for image in _images(held_out, chosen, progress)])
    # A measure is high where a distance is small: the level is the alarm threshold of its negative.
    whole, inner, windows = (max(-alarm_threshold(-measured[:, i], whose), 1e-3) for i in range(len(MEASURES)))
    gate = replace(gate, levels=(whole, inner, windows))
    copies = copy_threshold([found.distances for _, found in _planted(gate, training, TO_SET_IT, _FOR_THRESHOLD)])
    found = check_images(gate, held_out, chosen)
    threshold = min(copies, alarm_threshold(found.distances, whose))
    return Calibration(replace(gate, threshold=threshold), copies, replace(found, threshold=threshold), tuple(whose))


def fit_projection(training: Images) -> Projection:
    """The projection that tells training slices apart, and not from their copies."""
    rng = np.random.default_rng(0)
    every = np.sort(rng.choice(len(training), min(_TOLD_APART, len(training)), replace=False))
    maps = np.array([edge_map(image) for image in _images(training, every)])
    chosen = np.sort(rng.choice(len(every), min(_FITTED, len(every)), replace=False))
    originals = [*_images(training, every[chosen])]
    moved, still = (np.array([edge_map(disturb(image, rng, **by)) for image in originals]) for by in (_MOVED, _STILL))
    return Projection.fit(maps, maps[chosen], moved, still)


def copy_threshold(copies: Sequence[FloatArray]) -> float:
    """The distance below which `FOUND` of the copies of every kind are; ``copies`` are the distances of each kind."""
    needed = max(float(np.quantile(distances, FOUND, method="higher")) for distances in copies)
    return min(2.0, float(np.nextafter(np.float32(needed), np.float32(2))))


def alarm_threshold(distances: FloatArray, patients: Sequence[str]) -> float:
    """The distance below which `FALSE_ALARMS` of held-out slices are, every patient counting alike.

    Were every slice to count alike, the patients of the most slices would decide for all.
    """
    _, codes, slices = np.unique(list(patients), return_inverse=True, return_counts=True)
    order = np.argsort(distances, kind="stable")
    below = np.cumsum((1 / slices / len(slices))[codes[order]])
    return float(distances[order[np.searchsorted(below, FALSE_ALARMS)]])


def check_images(gate: Gate, images: Images, chosen: IntArray | None = None, progress: Progress | None = None) -> Check:
    """`Gate.check` of any number of images, or of those ``chosen``, read a few at a time."""
    numbers = np.arange(len(images)) if chosen is None else chosen
    parts = [gate.check(image[None]) for image in _images(images, numbers, progress)]
    if not parts:
        return gate.check(images.batch([]))
    distances, neighbours = (np.concatenate([getattr(part, name) for part in parts]) for name in _PARTS)
    return Check(distances, neighbours, tuple(part.patients[0] for part in parts), gate.threshold)


def find_planted_copies(gate: Gate, training: Images, *, count: int = 0, seed: int = 0) -> dict[str, Estimate]:
    """Share of planted copies that ``gate`` flags, for each kind of `COPIES`, with an interval over patients.

    ``count`` training slices, or `PLANTED` ones, drawn by ``seed``, are changed and asked about; others than those that
    set the threshold. Where less than 95 % is found, passing the gate says little.
    """
    return {
        kind: estimate_mean(found.flagged, [gate.patients[i] for i in chosen])
        for kind, (chosen, found) in zip(COPIES, _planted(gate, training, count or PLANTED, seed), strict=True)
    }


def _planted(gate: Gate, training: Images, count: int, seed: int) -> Iterator[tuple[IntArray, Check]]:
    """Of each kind of `COPIES`, the slices that were copied, and what the gate says of the copies."""
    chosen = np.sort(np.random.default_rng(seed).choice(len(training), min(count, len(training)), replace=False))
    originals = training.batch(chosen)
    for kind in COPIES:
        yield chosen, gate.check(plant(originals, kind, seed))


def _some_of_each(patients: Sequence[str]) -> IntArray:
    """Numbers of slices, of each patient at most `_OF_A_PATIENT` and evenly spaced."""
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
    """Some images one by one, ``(H, W)``, read a few at a time."""
    for first in range(0, len(numbers), _CHUNK):
        yield from images.batch(numbers[first : first + _CHUNK])
        if progress is not None:
            progress(min(first + _CHUNK, len(numbers)), len(numbers))
