"""`Gate`: detects images that may be copies of a training slice. It needs numpy and scipy only.

An image is compared, rotated, mirrored, zoomed and shifted, with every training slice in three ways: as a whole, by its
inner part, and in windows, so that a copied part is found. Each way measures how much more similar the image is to one
slice than to slices of other patients: 0 means not more similar, 1 means equal. An image is flagged when one of the
measures is higher than that of almost all slices of held-out patients. An image that passes may still be a copy; this
is no guarantee of privacy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medvar_engine.encoders.preprocessing import check_slices
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.memorisation.edge_maps import ZOOMS, Maps, as_it_is, views
from medvar_engine.memorisation.projection import NUMBERS, REGIONS, WINDOWS, Packed, Projection, split_index
from medvar_engine.types import BoolArray, FloatArray, IntArray

MEASURES = ("whole", "inner part", "windows")
_OTHERS = 20  # number of nearest slices of other patients for comparison
_SKIPPED = 4  # nearest slices that are ignored in a window, because they may be copies
_CEILING = 0.85  # upper limit of the similarity to others, so that copies of duplicated training slices are found
_FEWEST = 4  # least number of windows for the mean, if a slice has fewer
_BLOCK = 4096  # rows of the index compared at a time
_FARTHEST = 2.0  # distance of an image that is similar to no slice


@dataclass(frozen=True, slots=True)
class Check:
    """The results of the gate for M images."""

    distances: FloatArray  # (M,) distance to the nearest training slice, 0…2
    neighbours: IntArray  # (M,) index of that slice
    patients: tuple[str, ...]  # (M,) patient of that slice
    threshold: float

    @property
    def flagged(self) -> BoolArray:
        """``(M,)``: whether each image is closer than the threshold."""
        return self.distances < self.threshold

    @property
    def share(self) -> float:
        """The share of flagged images; 0 without images."""
        return float(self.flagged.mean()) if len(self.distances) else 0.0

    def pairs(self) -> IntArray:
        """Flagged images and their nearest training slices ``(F, 2)``, the nearest pair first."""
        images = np.flatnonzero(self.flagged)
        order = images[np.argsort(self.distances[images], kind="stable")]
        return np.stack([order, self.neighbours[order]], axis=1)


@dataclass(frozen=True)
class Gate:
    """An index of all training slices, and the distance below which an image counts as a possible copy.

    Args:
        projection: the projection by which the index was made.
        index: ``(N, NUMBERS)``, one row for each training slice.
        patients: ``(N,)``, the patient of each slice, possibly a pseudonym.
        levels: for each of `MEASURES` the value that few slices of held-out patients exceed.
        threshold: the largest distance of a possible copy; the distance is 1 if a measure is at its level, ½ if twice
        as high.

    >>> Gate(projection, index, patients, (0.4, 0.4, 0.6), 0.8).check(images).flagged  # doctest: +SKIP
    """

    projection: Projection
    index: Packed
    patients: Sequence[str]
    levels: tuple[float, float, float] = (1.0, 1.0, 1.0)
    threshold: float = 0.0
    _regions: Sequence[FloatArray] = field(init=False, repr=False, compare=False)
    _codes: IntArray = field(init=False, repr=False, compare=False)  # patients as numbers

    def __post_init__(self) -> None:
        if not len(self.patients) or self.index.shape != (len(self.patients), NUMBERS):
            raise MedvarError(
                f"The index has the shape {self.index.shape}, but must have {len(self.patients)} rows of {NUMBERS} "
                "numbers."
            )
        if not 0 <= self.threshold <= _FARTHEST:
            raise MedvarError(f"The threshold must be a distance of 0…2, but is {self.threshold}.")
        if len(self.levels) != len(MEASURES) or not all(0 < level < np.inf for level in self.levels):
            raise MedvarError(f"{len(MEASURES)} levels above 0 are needed, but they are {self.levels}.")
        object.__setattr__(self, "_regions", split_index(self.index))
        object.__setattr__(self, "_codes", np.unique(list(self.patients), return_inverse=True)[1])

    def check(self, images: FloatArray) -> Check:
        """Check images ``(M, H, W)`` in [-1, 1].

        Images are checked one by one, because rounding could depend on the batch: the result of an image does not
        depend on other images.
        """
        measured = [self.measure(image) for image in images]
        values = np.array([one for one, _ in measured], dtype=np.float32).reshape(-1, len(MEASURES))
        rows = np.array([one for _, one in measured], dtype=np.int64).reshape(-1, len(MEASURES))
        shares = values / np.array(self.levels, dtype=np.float32)
        best = shares.argmax(axis=1)
        each = np.arange(len(values))
        distances = 1 / np.maximum(shares[each, best], np.float32(1 / _FARTHEST))
        neighbours = rows[each, best]
        return Check(distances, neighbours, tuple(self.patients[row] for row in neighbours), self.threshold)

    def risk(self, image: FloatArray) -> CopyRisk:
        """The copy risk of one image ``(H, W)``, clipped to [-1, 1] as in files; without the patient."""
        return CopyRisk(float(self.check(np.clip(image, -1, 1)[None]).distances[0]), self.threshold)

    def measure(self, image: FloatArray) -> tuple[list[float], list[int]]:
        """The `MEASURES` of one image ``(H, W)``, each with the training slice of the highest value."""
        check_slices(image[None])
        maps, zooms = views(image)
        full = (
            len(ZOOMS) // 2
        )  # the index before the first zoom at which most of a training slice is visible in the image
        found = [
            self._excess(self._nearest(0, maps[zooms >= full - 1])),
            self._excess(self._nearest(1, maps[zooms < full])),
            self._windows(as_it_is(maps)),
        ]
        return [value for value, _ in found], [row for _, row in found]

    def _nearest(self, region: int, maps: Maps) -> FloatArray:
        """For each training slice ``(N,)``, the similarity to its most similar view."""
        asked, rows = self.projection.unit(region, maps, emptier=0.5), self._regions[region]
        blocks = (rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK))
        return np.concatenate([(asked @ block.T).max(axis=0) for block in blocks])

    def _excess(self, similarities: FloatArray) -> tuple[float, int]:
        """How much more similar the nearest slice is than those of other patients, and its index."""
        row = int(similarities.argmax())
        others = min(self._others(similarities, row), _CEILING)
        return float((similarities[row] - others) / (1 - others)), row

    def _windows(self, maps: Maps) -> tuple[float, int]:
        """The same for windows at fixed positions, summed, so that a copied part is found."""
        total = np.zeros((len(maps), len(self.patients)), dtype=np.float32)
        there = np.zeros(len(self.patients), dtype=np.float32)
        for number in range(len(REGIONS) - len(WINDOWS), len(REGIONS)):
            rows = self._regions[number]
            similar = self.projection.unit(number, maps, emptier=0.5) @ rows.T
            usual = np.clip(_mean_of_highest(similar), 0, 0.98)[:, None]
            total += np.maximum((similar - usual) / (1 - usual), 0)
            there += rows.any(axis=1)
        scores = total.max(axis=0) / np.sqrt(np.maximum(there, _FEWEST))
        row = int(scores.argmax())
        return float(scores[row] - np.float32(0.7) * self._others(scores, row)), row

    def _others(self, values: FloatArray, row: int) -> float:
        """The mean of the highest values of slices of patients other than that of ``row``; 0 without such slices."""
        others = values[self._codes != self._codes[row]]
        return float(np.sort(others)[-_OTHERS:].mean()) if len(others) else 0.0


def _mean_of_highest(values: FloatArray) -> FloatArray:
    """The mean of the highest values of each row, without the very highest ones; 0 if there are no others."""
    last = min(_SKIPPED + _OTHERS, values.shape[1])
    if last <= _SKIPPED:
        return np.zeros(len(values), dtype=np.float32)
    highest = -np.sort(np.partition(-values, last - 1, axis=1)[:, :last], axis=1)
    return np.asarray(highest[:, _SKIPPED:].mean(axis=1), dtype=np.float32)
