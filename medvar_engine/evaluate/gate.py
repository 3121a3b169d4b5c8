"""`Gate`: is an image a copy of a training slice? Numpy and an encoder only, so that whoever generates can ask it.

An image is flagged when the nearest training slice is nearer than nearly all slices of people who were not trained on
(Dar et al., arXiv 2307.01148). That finds copies; that an image passes is no guarantee of privacy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medvar_engine.arrays import BoolArray, FloatArray, IntArray
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.centring import centred
from medvar_engine.evaluate.encoders import Encoder
from medvar_engine.evaluate.neighbours import MIRRORS, Embeddings, nearest

_TOGETHER = 64  # images that are encoded together, in all their mirrored forms


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

    ``embeddings`` ``(N, D)`` are those that ``encoder`` makes of the slices when they are `centred`; ``patients`` says
    of each row whose it is, perhaps under a pseudonym.

    >>> Gate(encoder, embeddings, patients, 0.2).check(images).flagged  # doctest: +SKIP
    """

    encoder: Encoder
    embeddings: Embeddings
    patients: Sequence[str]
    threshold: float

    def __post_init__(self) -> None:
        if self.embeddings.shape != (len(self.patients), self.encoder.dimension) or not len(self.patients):
            raise MedvarError(
                f"The embeddings are {self.embeddings.shape}, but there are {len(self.patients)} training slices, and "
                f"the encoder gives {self.encoder.dimension} features."
            )
        if not 0 <= self.threshold <= 2:
            raise MedvarError(f"The threshold is a distance of 0…2, but got {self.threshold}.")

    def check(self, images: FloatArray) -> Check:
        """Images ``(M, H, W)`` in [-1, 1], each centred and in all `MIRRORS`, so that no such change hides a copy."""
        parts = []
        for first in range(0, len(images), _TOGETHER):
            some = centred(images[first : first + _TOGETHER])
            parts.append(self.compare([self.encoder.encode(np.flip(some, axes)) for axes in MIRRORS]))
        return self._checked(
            np.concatenate([part.distances for part in parts] or [np.empty(0, dtype=np.float32)]),
            np.concatenate([part.neighbours for part in parts] or [np.empty(0, dtype=np.int64)]),
        )

    def compare(self, mirrored: Sequence[Embeddings]) -> Check:
        """The same of images that are centred and encoded already: ``(M, D)`` for each of `MIRRORS`."""
        found = [nearest(embeddings, self.embeddings) for embeddings in mirrored]
        distances = np.stack([distance for distance, _ in found])
        neighbours = np.stack([number for _, number in found])
        chosen = distances.argmin(axis=0)[None]
        return self._checked(np.take_along_axis(distances, chosen, 0)[0], np.take_along_axis(neighbours, chosen, 0)[0])

    def _checked(self, distances: FloatArray, neighbours: IntArray) -> Check:
        return Check(distances, neighbours, tuple(self.patients[number] for number in neighbours), self.threshold)
