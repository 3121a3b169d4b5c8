"""`Gate`: is an image a copy of a training slice? Numpy and an encoder only, so that whoever generates can ask it.

An image is flagged when the nearest training slice is nearer than nearly all slices of people who were not trained on
(Dar et al., arXiv 2307.01148). That finds copies; that an image passes is no guarantee of privacy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvar_engine.encoders.centring import centred
from medvar_engine.encoders.encoder import Encoder
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.memorisation.neighbours import MIRRORS, Embeddings, nearest
from medvar_engine.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Check:
    """What the gate says of M images."""

    distances: FloatArray  # (M,) to the nearest training slice, 0…2
    neighbours: IntArray  # (M,) its number
    patients: tuple[str, ...]  # (M,) whose it is
    threshold: float

    @property
    def flagged(self) -> BoolArray:
        """``(M,)``: nearer than the threshold, so to be withheld or marked."""
        return self.distances < self.threshold

    @property
    def share(self) -> float:
        """Share of the images that are flagged; 0 when there are none."""
        return float(self.flagged.mean()) if len(self.distances) else 0.0

    def pairs(self) -> IntArray:
        """Flagged images and their training slices ``(F, 2)``, the nearest pair first: what a report shows."""
        images = np.flatnonzero(self.flagged)
        order = images[np.argsort(self.distances[images], kind="stable")]
        return np.stack([order, self.neighbours[order]], axis=1)


@dataclass(frozen=True, slots=True)
class Gate:
    """Embeddings of all training slices, and the distance below which an image is too near to one of them.

    ``embeddings`` ``(V·N, D)`` are those that ``encoder`` makes of the N slices when they are `centred`: all of them,
    then perhaps all of them in other windows, so that a copy which was clipped is near to one; ``patients`` ``(N,)``
    says of each slice whose it is, perhaps under a pseudonym.

    >>> Gate(encoder, embeddings, patients, 0.2).check(images).flagged  # doctest: +SKIP
    """

    encoder: Encoder
    embeddings: Embeddings
    patients: Sequence[str]
    threshold: float

    def __post_init__(self) -> None:
        slices, shape = len(self.patients), self.embeddings.shape
        if not slices or len(shape) != 2 or not shape[0] or shape[0] % slices or shape[1] != self.encoder.dimension:
            raise MedvarError(
                f"The embeddings are {shape}, but there are {slices} training slices, and "
                f"the encoder gives {self.encoder.dimension} features."
            )
        if not 0 <= self.threshold <= 2:
            raise MedvarError(f"The threshold is a distance of 0…2, but got {self.threshold}.")

    def check(self, images: FloatArray) -> Check:
        """Images ``(M, H, W)`` in [-1, 1], each centred and in all `MIRRORS`, so that no such change hides a copy.

        One by one, for a sum is rounded otherwise among others: what is flagged does not depend on who is asked with.
        """
        distances = np.empty(len(images), dtype=np.float32)
        neighbours = np.empty(len(images), dtype=np.int64)
        for i in range(len(images)):
            image = centred(images[i : i + 1])
            mirrored = np.concatenate([np.flip(image, axes) for axes in MIRRORS])
            found, numbers = nearest(self.encoder.encode(mirrored), self.embeddings)
            distances[i], neighbours[i] = found.min(), numbers[found.argmin()]
        return self._checked(distances, neighbours)

    def risk(self, image: FloatArray) -> CopyRisk:
        """How near one image ``(H, W)`` is, clipped to [-1, 1] as it is when it is written; without saying to whom."""
        return CopyRisk(float(self.check(np.clip(image, -1, 1)[None]).distances[0]), self.threshold)

    def compare(self, mirrored: Sequence[Embeddings]) -> Check:
        """The same of images that are centred and encoded already: ``(M, D)`` for each of `MIRRORS`."""
        found = [nearest(embeddings, self.embeddings) for embeddings in mirrored]
        distances = np.stack([distance for distance, _ in found])
        neighbours = np.stack([number for _, number in found])
        chosen = distances.argmin(axis=0)[None]
        return self._checked(np.take_along_axis(distances, chosen, 0)[0], np.take_along_axis(neighbours, chosen, 0)[0])

    def _checked(self, distances: FloatArray, neighbours: IntArray) -> Check:
        slices = neighbours % len(self.patients)  # in whatever window
        return Check(distances, slices, tuple(self.patients[number] for number in slices), self.threshold)
