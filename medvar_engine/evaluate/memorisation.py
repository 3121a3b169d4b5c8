"""Memorisation: are synthetic images nearer to a training slice than slices of new people are?

As Dar et al. (arXiv 2307.01148): the distance to the nearest training slice in an embedding, against that of slices of
people held out from training. What is nearer than nearly all of these is flagged; but no farther than it takes to find
copies, which are planted for that. Of few people held out a threshold is rough, and copies there are as many as one
plants. Whether flagging works is seen by other copies, see `find_planted_copies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medvar_engine.encoders.encoder import Encoder
from medvar_engine.encoders.feature_cache import Progress, cached_features
from medvar_engine.encoders.image_source import CentredImages, Images, MirroredImages, WindowedImages
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.planted_copies import COPIES, plant
from medvar_engine.evaluate.metrics.bootstrap import Estimate, estimate_mean
from medvar_engine.memorisation.gate import Check, Gate
from medvar_engine.memorisation.neighbours import MIRRORS
from medvar_engine.types import FloatArray, IntArray

FALSE_ALARMS = 0.05  # share of slices of new people that may be flagged
FOUND = 0.95  # share of planted copies of every kind that is to be flagged
PLANTED = 200  # training slices of which copies are planted
_FOR_THRESHOLD = 1  # seed of the copies that set it; those that are reported are of another
WINDOWS = ((0.15, 0.8), (-0.15, 0.8))
"""Centre and width of the windows in which training slices are embedded, too: one that clips what is darkest, and one
that clips what is brightest. What gain and offset do, an encoder learns to pass over; what is clipped is gone."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A gate, and what slices of new people measured by it."""

    gate: Gate
    copies: float  # the distance that it takes to find planted copies, see `copy_threshold`
    held_out: Check
    held_out_patients: tuple[str, ...]  # whose each of these slices is

    @property
    def false_alarms(self) -> Mapping[str, float]:
        """Share of each held-out patient's slices that are flagged when the threshold is set without that patient.

        This is what a new person must expect.
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
    encoder: Encoder,
    training: Images,
    training_patients: Sequence[str],
    held_out: Images,
    held_out_patients: Sequence[str],
    cache: Path,
    progress: Progress | None = None,
) -> Calibration:
    """The gate of a training set, its threshold set by planted copies, and by people who are not in it.

    It is the smaller one of `copy_threshold` and `alarm_threshold`.

    Args:
        encoder: what makes the embeddings.
        training: slices that the model was trained on.
        training_patients: whose each of them is.
        held_out: slices of other people.
        held_out_patients: whose each of these is.
        cache: folder in which features are kept.
        progress: told of every set of images that is encoded.

    Raises:
        MedvarError: when a patient is on both sides, or nobody is held out.
    """
    for images, patients in ((training, training_patients), (held_out, held_out_patients)):
        if len(images) != len(patients) or not len(images):
            raise MedvarError(
                f"Memorisation needs slices, and whose each is, but there are {len(images)} slices and {len(patients)} "
                "names. Without people held out from training there is nothing to compare with; prepare the data again "
                "with a test_fraction."
            )
    if both := sorted(set(training_patients) & set(held_out_patients)):
        raise MedvarError(
            f"Patient {both[0]} is both trained on and held out; nothing can be said of memorisation. Split by patient."
        )
    shown = [training, *(WindowedImages(training, centre, width) for centre, width in WINDOWS)]
    embeddings = np.concatenate([cached_features(encoder, CentredImages(one), cache, progress) for one in shown])
    open_gate = Gate(encoder, embeddings, training_patients, threshold=0.0)
    copies = copy_threshold([found.distances for _, found in _planted(open_gate, training, PLANTED, _FOR_THRESHOLD)])
    distances = compare_images(open_gate, held_out, cache, progress).distances
    gate = replace(open_gate, threshold=min(copies, alarm_threshold(distances, held_out_patients)))
    return Calibration(gate, copies, compare_images(gate, held_out, cache, progress), tuple(held_out_patients))


def copy_threshold(copies: Sequence[FloatArray]) -> float:
    """The distance below which `FOUND` of the copies of every kind are; ``copies`` are the distances of each kind."""
    needed = max(float(np.quantile(distances, FOUND, method="higher")) for distances in copies)
    return min(2.0, float(np.nextafter(np.float32(needed), np.float32(2))))


def alarm_threshold(distances: FloatArray, patients: Sequence[str]) -> float:
    """The distance below which `FALSE_ALARMS` of held-out slices are, every patient counting alike.

    Were every slice to count alike, the people of the most slices would decide for all.
    """
    _, codes, slices = np.unique(list(patients), return_inverse=True, return_counts=True)
    order = np.argsort(distances, kind="stable")
    below = np.cumsum((1 / slices / len(slices))[codes[order]])
    return float(distances[order[np.searchsorted(below, FALSE_ALARMS)]])


def compare_images(gate: Gate, images: Images, cache: Path, progress: Progress | None = None) -> Check:
    """As `Gate.check`, of any number of images, with their features kept in ``cache``."""
    centred = CentredImages(images)
    return gate.compare(
        [cached_features(gate.encoder, MirroredImages(centred, axes), cache, progress) for axes in MIRRORS]
    )


def find_planted_copies(gate: Gate, training: Images, *, count: int = PLANTED, seed: int = 0) -> dict[str, Estimate]:
    """Share of planted copies that ``gate`` flags, for each kind of `COPIES`, with an interval over people.

    ``count`` training slices, drawn by ``seed``, are changed and asked about; others than those that set the
    threshold. Where less than 95 % is found, passing the gate says little.
    """
    return {
        kind: estimate_mean(found.flagged, [gate.patients[i] for i in chosen])
        for kind, (chosen, found) in zip(COPIES, _planted(gate, training, count, seed), strict=True)
    }


def _planted(gate: Gate, training: Images, count: int, seed: int) -> list[tuple[IntArray, Check]]:
    """Of each kind of `COPIES`, the slices that were copied, and what the gate says of the copies."""
    chosen = np.sort(np.random.default_rng(seed).choice(len(training), min(count, len(training)), replace=False))
    originals = training.batch(chosen)
    return [(chosen, gate.check(plant(originals, kind, seed))) for kind in COPIES]
