"""`Projection`: reduces edge maps to a few numbers per region, such that copies agree and other slices differ.

The directions are those of linear discriminant analysis (Fisher 1936; Rao 1948): along them the differences between
slices are largest relative to those between a slice and its copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.edge_maps import GRID, Maps
from medvar_engine.types import FloatArray

_EMPTY = 0.15  # share of the usual content of a region below which there is nothing to compare
_RIDGE = 0.1  # share of the mean variance within copies that is added to each variance


@dataclass(frozen=True, slots=True)
class Region:
    """A square in the middle of an edge map; ``step`` cells are averaged, and ``numbers`` describe it."""

    side: int
    step: int
    numbers: int

    def values(self, maps: Maps) -> FloatArray:
        """``(N, GRID, GRID)`` → ``(N, features)``, real and imaginary parts."""
        part = self._averaged(maps)
        return np.concatenate([part.real, part.imag], axis=1).astype(np.float32)

    def shares(self, seen: FloatArray) -> FloatArray:
        """The visible share of each of `values`, from that of each cell."""
        return np.tile(self._averaged(seen), (1, 2)).astype(np.float32)

    @property
    def features(self) -> int:
        """The number of `values` of a map."""
        return 2 * (self.side // self.step) ** 2

    def _averaged(self, maps: npt.NDArray[np.inexact]) -> npt.NDArray[np.inexact]:
        first, cells = (GRID - self.side) // 2, self.side // self.step
        part = maps[:, first : first + self.side, first : first + self.side]
        return part.reshape(len(part), cells, self.step, cells, self.step).mean(axis=(2, 4)).reshape(len(part), -1)


WHOLE = Region(GRID, 2, 128)
INNER = Region(16, 2, 128)  # the part of a slice that an enlarged image shows
REGIONS = (WHOLE, INNER)
_SIZES = [size for region in REGIONS for size in (region.features * region.numbers, region.features, 1)]


@dataclass(frozen=True, slots=True)
class Projection:
    """For each of `REGIONS` a matrix ``(features, numbers)``, a mean ``(features,)``, and the length if empty."""

    matrices: tuple[FloatArray, ...]
    means: tuple[FloatArray, ...]
    floors: tuple[float, ...]

    @classmethod
    def fit(cls, slices: Maps, originals: Maps, copies: Maps) -> Projection:
        """The projection that separates ``slices`` from each other, but not ``originals`` from their ``copies``."""
        from scipy.linalg import eigh

        matrices, means, floors = [], [], []
        for region in REGIONS:
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

    def unit(self, number: int, maps: Maps, seen: FloatArray | None = None) -> FloatArray:
        """The numbers of region ``number``, scaled to length 1: ``(N, numbers)``; zeros where it is empty.

        Invisible parts, see `Region.shares`, count as average.
        """
        region, mean = REGIONS[number], self.means[number]
        values = region.values(maps)
        there = np.linalg.norm(values, axis=1, keepdims=True) > self.floors[number]
        rows = (values - (mean if seen is None else mean * region.shares(seen))) @ self.matrices[number]
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-3))) * there

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
