"""`Projection`: reduces edge maps to a few numbers per region, such that copies agree and other slices differ.

The directions are those of linear discriminant analysis (Fisher 1936; Rao 1948): along them the differences between
slices are largest relative to those between a slice and its copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.edge_maps import GRID, Maps
from medvar_engine.types import FloatArray

_EMPTY = 0.3  # fraction of the usual edge content of a region below which the region counts as empty
_RIDGE = 0.1  # fraction of the mean variance within copies that is added to each variance
Packed = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an edge map in cells; ``step`` × ``step`` cells are averaged, and ``numbers`` features are kept."""

    top: int
    left: int
    side: int
    step: int
    numbers: int

    def values(self, maps: Maps) -> FloatArray:
        """Maps ``(N, GRID, GRID)`` → real and imaginary parts of the region ``(N, features)``."""
        part = maps[:, self.top : self.top + self.side, self.left : self.left + self.side]
        cells = self.side // self.step
        part = part.reshape(len(part), cells, self.step, cells, self.step).mean(axis=(2, 4)).reshape(len(part), -1)
        return np.concatenate([part.real, part.imag], axis=1).astype(np.float32)

    @property
    def features(self) -> int:
        """The number of `values` of a map."""
        return 2 * (self.side // self.step) ** 2


WHOLE = Region(0, 0, GRID, 2, 128)
INNER = Region(4, 4, 16, 2, 128)  # the part of a slice that is visible in an enlarged copy
WINDOWS = tuple(Region(top, left, 6, 1, 20) for top in range(0, GRID, 6) for left in range(0, GRID, 6))
REGIONS = (WHOLE, INNER, *WINDOWS)
NUMBERS = sum(region.numbers for region in REGIONS)
_SIZES = [size for region in REGIONS for size in (region.features * region.numbers, region.features, 1)]


@dataclass(frozen=True, slots=True)
class Projection:
    """For each of `REGIONS` a matrix ``(features, numbers)``, a mean ``(features,)``, and the length if empty."""

    matrices: tuple[FloatArray, ...]
    means: tuple[FloatArray, ...]
    floors: tuple[float, ...]

    @classmethod
    def fit(cls, slices: Maps, originals: Maps, moved: Maps, still: Maps) -> Projection:
        """Fit the projection that separates ``slices``.

        ``moved`` and ``still`` are maps of changed copies of ``originals``: shifted and zoomed ones, for the whole
        slice and its inner part, and ones at the same position, for small windows.
        """
        from scipy.linalg import eigh

        matrices, means, floors = [], [], []
        for region in REGIONS:
            copies = still if region in WINDOWS else moved
            values, own = region.values(slices), region.values(originals)
            within = region.values(copies) - own
            spread = within.T @ within / len(within)
            spread += np.eye(len(spread), dtype=np.float32) * (_RIDGE * np.trace(spread) / len(spread) + 1e-4)
            between = np.cov(values.T) if len(values) > 1 else np.eye(region.features)
            _, vectors = eigh(between, spread)
            matrices.append(np.ascontiguousarray(vectors[:, ::-1][:, : region.numbers], dtype=np.float32))
            means.append(values.mean(axis=0))
            floors.append(_EMPTY * float(np.percentile(np.linalg.norm(values, axis=1), 75)))
        return cls(tuple(matrices), tuple(means), tuple(floors)).rounded()

    def rounded(self) -> Projection:
        """The projection rounded to the precision of `pack`."""
        return Projection.unpack(self.pack())

    def unit(self, number: int, maps: Maps, *, emptier: float = 1.0) -> FloatArray:
        """The features of region ``number``, scaled to length 1: ``(N, numbers)``; zeros for an empty region."""
        values = REGIONS[number].values(maps)
        there = np.linalg.norm(values, axis=1, keepdims=True) > self.floors[number] * emptier
        return _unit((values - self.means[number]) @ self.matrices[number]) * there

    def index(self, maps: Maps) -> Packed:
        """The row ``(NUMBERS,)`` of the index for each map: the features of all regions in 8 bits."""
        parts = []
        for number in range(len(REGIONS)):
            unit = self.unit(number, maps)
            largest = np.maximum(np.abs(unit).max(axis=1, keepdims=True), np.float32(1e-6))
            parts.append(np.rint(unit * (127 / largest)).astype(np.int8))
        return np.concatenate(parts, axis=1)

    def pack(self) -> npt.NDArray[np.float16]:
        """All numbers as one row."""
        groups = zip(self.matrices, self.means, self.floors, strict=True)
        parts = [np.ravel(part) for group in groups for part in group]
        return np.concatenate(parts).astype(np.float16)

    @classmethod
    def unpack(cls, row: npt.NDArray[np.float16]) -> Projection:
        """The inverse of `pack`. Raises `MedvarError` for a wrong number of values."""
        if row.shape != (sum(_SIZES),):
            raise MedvarError(f"A projection must have {sum(_SIZES)} numbers, but has {row.shape}.")
        parts = np.split(row.astype(np.float32), np.cumsum(_SIZES)[:-1])
        matrices = [
            part.reshape(region.features, region.numbers) for part, region in zip(parts[::3], REGIONS, strict=True)
        ]
        return cls(tuple(matrices), tuple(parts[1::3]), tuple(float(part[0]) for part in parts[2::3]))


def split_index(index: Packed) -> Sequence[FloatArray]:
    """The rows ``(N, NUMBERS)`` of an index split by region, scaled to length 1."""
    ends = np.cumsum([region.numbers for region in REGIONS])[:-1]
    return [_unit(part.astype(np.float32)) for part in np.split(index, ends, axis=1)]


def _unit(rows: npt.NDArray[np.floating]) -> FloatArray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-3)), np.float32)
