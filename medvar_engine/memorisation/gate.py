"""`Gate`: detects images that may be copies of a training slice. It needs numpy and scipy only.

The check has two steps. A few numbers of each training slice quickly show which ones are most similar to an image that
is turned, mirrored, zoomed and shifted in every way. The image is then aligned with each of these, and
compared with it and with similar slices of other patients, as a whole and in parts, so that copies of parts are found,
too. An image is flagged if it is closer to one slice than almost all slices of held-out patients are. An image that
passes is no guarantee of privacy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medvar_engine.encoders.preprocessing import check_slices
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.alignment import Overlay, alike
from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.memorisation.edge_maps import FORMS, Directions, View, turned, turned_back, turned_shares
from medvar_engine.memorisation.packed_maps import NUMBERS, Packed, unpack
from medvar_engine.memorisation.projection import REGIONS, Projection
from medvar_engine.memorisation.window_search import WindowSearch
from medvar_engine.types import BoolArray, FloatArray, IntArray

MEASURES = ("whole", "a part")
ZOOMS = np.exp(np.linspace(np.log(3 / 4), np.log(4 / 3), 7))  # the zooms at which an image is compared
_SHIFTS = np.array([-7.0, 0, 7])  # shifts in each direction, in pixels of 128
_ZOOMS_OF = (
    slice(2, 7),
    slice(0, 3),
)  # for each of `REGIONS`: an enlarged image shows the region, a reduced one only its middle
_BY_NUMBERS = 6  # number of training slices with which an image is aligned, for each region
_IN_PLACE = 8  # and number of slices similar to a part of it
_OTHERS = 20  # similar slices of other patients
_SAME = 0.9  # similarity of two maps above which two names are taken for one patient
_BLOCK = 4096  # rows of the index that are compared together
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


class _Candidate(NamedTuple):
    """A training slice that an image may be a copy of."""

    row: int
    similar: FloatArray  # (N,) similarity of each training slice, in the same view
    view: View
    form: int  # rotation of the image


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

    >>> Gate(projection, index, patients, (0.8, 1.2), 0.9).check(images).flagged  # doctest: +SKIP
    """

    projection: Projection
    index: Packed
    patients: Sequence[str]
    levels: tuple[float, float] = (1.0, 1.0)
    threshold: float = 0.0
    _regions: Sequence[FloatArray] = field(init=False, repr=False, compare=False)
    _windows: WindowSearch = field(init=False, repr=False, compare=False)
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
            raise MedvarError(f"There are {len(MEASURES)} levels above 0, but got {self.levels}.")
        blocks = [unpack(self.index[first : first + _BLOCK]) for first in range(0, len(self.index), _BLOCK)]
        rows = [np.concatenate([self.projection.unit(i, maps) for maps in blocks]) for i in range(len(REGIONS))]
        object.__setattr__(self, "_regions", rows)
        object.__setattr__(self, "_windows", WindowSearch.of(blocks))
        object.__setattr__(self, "_codes", np.unique(list(self.patients), return_inverse=True)[1])

    def check(self, images: FloatArray) -> Check:
        """Check images ``(M, H, W)`` in [-1, 1].

        Images are checked one by one, because rounding could depend on the batch: the result of an image does not
        depend on other images.
        """
        return self.checked([self.measure(image) for image in images])

    def checked(self, measured: Sequence[tuple[list[float], list[int]]]) -> Check:
        """The result for M images with these values of `measure`."""
        values = np.array([one for one, _ in measured], dtype=np.float32).reshape(-1, len(MEASURES))
        rows = np.array([one for _, one in measured], dtype=np.int64).reshape(-1, len(MEASURES))
        neighbours = rows[np.arange(len(rows)), (values / self.levels).argmax(axis=1)]
        patients = tuple(self.patients[row] for row in neighbours)
        return Check(distances(values, self.levels), neighbours, patients, self.threshold)

    def risk(self, image: FloatArray) -> CopyRisk:
        """The copy risk of one image ``(H, W)``, clipped to [-1, 1] as in files; without the patient."""
        return CopyRisk(float(self.check(np.clip(image, -1, 1)[None]).distances[0]), self.threshold)

    def measure(self, image: FloatArray) -> tuple[list[float], list[int]]:
        """The `MEASURES` of one image ``(H, W)``, each with the training slice of the highest value."""
        check_slices(image[None])
        directions = Directions.of(image)
        candidates = [*self._by_numbers(directions, 0), *self._by_numbers(directions, 1), *self._in_place(directions)]
        overlay = Overlay(directions)
        ratios = np.array([self._ratios(overlay, candidate) for candidate in candidates])
        best = ratios.argmax(axis=0)
        return ratios[best, [0, 1]].tolist(), [candidates[i].row for i in best]

    def _by_numbers(self, image: Directions, region: int) -> Iterator[_Candidate]:
        """The slices that are most similar to the image in any view, by the numbers of a region."""
        maps, seen, views = image.views(ZOOMS[_ZOOMS_OF[region]], _SHIFTS, _SHIFTS)
        forms = ((turned(maps, form), turned_shares(seen, form)) for form in range(FORMS))
        asked = np.concatenate([self.projection.unit(region, *form) for form in forms])
        rows = self._regions[region]
        blocks = (rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK))
        similar = np.concatenate([(asked @ block.T).max(axis=0) for block in blocks])
        nearest = _highest(similar, _BY_NUMBERS)
        found = (asked @ rows[nearest].T).argmax(axis=0)
        for row, i, in_this_view in zip(nearest, found, asked[found] @ rows.T, strict=True):
            yield _Candidate(int(row), in_this_view, views[i % len(views)], int(i) // len(views))

    def _in_place(self, image: Directions) -> Iterator[_Candidate]:
        """The slices that share a part with the image, with the position of the part."""
        maps, seen, views = image.views(*np.array([[1.0], [0], [0]]))
        forms = [(turned(maps, form), turned_shares(seen, form)) for form in range(FORMS)]
        similar = self._windows.similar(*(np.concatenate(part) for part in zip(*forms, strict=True)))
        best = similar.argmax(axis=0)
        for row in _highest(similar.max(axis=0), _IN_PLACE):
            yield _Candidate(int(row), similar[best[row]], views[0], int(best[row]))

    def _ratios(self, overlay: Overlay, candidate: _Candidate) -> tuple[float, float]:
        row = candidate.row
        others = _highest(np.where(self._codes == self._codes[row], -np.inf, candidate.similar), _OTHERS)
        maps = turned_back(unpack(self.index[[row, *others]]), candidate.form)
        different = maps[alike(maps, maps[0]) < _SAME]
        ratios = overlay.fit(candidate.view, maps[0], different.sum(axis=0) / max(1, len(different)))
        return float(ratios[0]), float(ratios[1:].max())


def distances(values: npt.NDArray[np.floating], levels: Sequence[float]) -> FloatArray:
    """Distances ``(M,)`` of images from training slices, from their measures ``(M, 2)``: 1 if one is at its level."""
    highest = (values / np.array(levels)).max(axis=1)
    return np.asarray(1 / np.maximum(highest, 1 / _FARTHEST), dtype=np.float32)


def _highest(values: FloatArray, count: int) -> IntArray:
    """The indices of the highest finite values, in no order."""
    places = np.argpartition(-values, min(count, len(values)) - 1)[:count]
    return np.asarray(places[np.isfinite(values[places])])
