"""`WindowSearch`: finds training slices that share a part with an image, which may be masked or mixed with another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.memorisation.edge_maps import GRID, Maps
from medvar_engine.types import FloatArray

_WINDOWS = 4  # a side
_CELLS = 3  # cells per side of a window; each is the average of 2 × 2 cells of a map
_LEAST_SEEN = np.float32(0.15)  # least visible share of a cell
_EDGES = 0.03  # least squared length of the edges of a window
_USUAL = 30  # number of slices that may be more similar to an image in a window than usual
_CEILING = np.float32(0.9)  # largest usual similarity, so that slices that occur many times are found


@dataclass(frozen=True, slots=True)
class WindowSearch:
    """Of N slices and W windows, the parts of directions ``(W, N, 2·cells)``, and squared lengths ``(W, N, cells)``."""

    parts: FloatArray
    lengths: FloatArray

    @classmethod
    def of(cls, blocks: Iterable[Maps]) -> WindowSearch:
        """The search over all maps ``(N, GRID, GRID)``, which are given in blocks."""
        windows = [_windows(block) for block in blocks]
        parts = np.concatenate([_parts(maps) for maps in windows], axis=1)
        lengths = np.concatenate([np.square(np.abs(maps)) for maps in windows], axis=1)
        return cls(parts, lengths)

    def similar(self, edges: Maps, seen: FloatArray) -> FloatArray:
        """How much more similar than usual the slices are to V maps ``(V, GRID, GRID)``: ``(V, N)``, summed.

        ``seen`` is the share of each cell that is seen.
        """
        shares = _windows(seen)
        weights = np.where(shares > _LEAST_SEEN, shares, 0)
        asked = _windows(edges) / np.maximum(shares, _LEAST_SEEN)
        own = (weights * np.square(np.abs(asked))).sum(axis=2, keepdims=True)
        asked = np.tile(weights, (1, 1, 2)) * _parts(asked)
        total = np.zeros((len(edges), self.parts.shape[1]), dtype=np.float32)
        for window, there in enumerate(own > _EDGES):
            if not there.any():
                continue
            similar = 2 * asked[window] @ self.parts[window].T
            similar /= own[window] + weights[window] @ self.lengths[window].T + np.float32(1e-3)
            usual = np.clip(_highest_but(similar, _USUAL), 0, _CEILING)
            total += np.maximum(similar - usual, 0) * (np.sqrt(own[window]) * there / (1 - usual))
        return total


def _windows(maps: npt.NDArray[np.inexact]) -> npt.NDArray[np.inexact]:
    """``(N, GRID, GRID)`` → ``(W, N, cells)``."""
    step = GRID // (_WINDOWS * _CELLS)
    coarse = maps.reshape(len(maps), _WINDOWS, _CELLS, step, _WINDOWS, _CELLS, step).mean(axis=(3, 6))
    return np.ascontiguousarray(coarse.transpose(1, 3, 0, 2, 4).reshape(_WINDOWS**2, len(maps), _CELLS**2))


def _parts(maps: npt.NDArray[np.inexact]) -> FloatArray:
    return np.concatenate([maps.real, maps.imag], axis=2).astype(np.float32)


def _highest_but(values: FloatArray, count: int) -> FloatArray:
    """The value of each row that ``count`` others exceed, ``(V, 1)``; the lowest if there are no more."""
    place = max(0, values.shape[1] - 1 - count)
    return np.partition(values, place, axis=1)[:, place, None]
