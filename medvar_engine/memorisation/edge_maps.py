"""Edge maps: the local directions of edges in a slice, independent of window, gamma and polarity.

Every pixel is represented by a complex number with twice the angle of its gradient (Bigün & Granlund, ICCV 1987), so
that edges from dark to bright and from bright to dark are equal. Its magnitude is the gradient strength relative to the
surroundings, which reduces the effect of contrast. The map consists of averages over a coarse grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medvar_engine.encoders.preprocessing import resize
from medvar_engine.types import BoolArray, FloatArray

GRID = 24  # cells per side of a map
FORMS = 8  # rotations by right angles, and their mirror images
_SIDE = 128  # pixels per side to which images are resized
_BIN = 2  # pixels per side that are averaged before cells
_EDGE = 1.5  # pixels, standard deviation of the derivative of a Gaussian
_SURROUNDINGS = 8.0  # shift in pixels, likewise
_SHARE = np.float32(0.7)  # strength relative to the surroundings at which an edge counts half
_FLOOR = np.float32(0.004)  # gradient per pixel below which there is only noise
_EVEN = 0.02  # range of values within a flat area
_FLAT = 9  # pixels per side of a square that fits into a flat area
_BORDER = 4  # pixels around a flat area in which its border makes edges

Maps = npt.NDArray[np.complex64]
Numbers = npt.NDArray[np.floating]


class View(NamedTuple):
    """A view of an image: enlarged by ``zoom`` about its middle, then moved down and right in pixels."""

    zoom: float
    down: float
    right: float


@dataclass(frozen=True, slots=True)
class Directions:
    """The directions of an image's edges ``(64, 64)``, averages of 2 × 2 pixels, and which share of these is seen.

    Flat areas may be masks: what is under them is unknown, and their borders are not edges of the slice.
    """

    edges: Maps
    seen: FloatArray

    @classmethod
    def of(cls, image: FloatArray) -> Directions:
        """The directions of an image ``(H, W)`` in [-1, 1]."""
        described = _described(image)
        seen = ~_flat(described)
        return cls(
            np.asarray(_binned(_directions(described, seen)), np.complex64),
            np.asarray(_binned(seen.astype(np.float32)), np.float32),
        )

    def views(self, zooms: Numbers, downs: Numbers, rights: Numbers) -> tuple[Maps, FloatArray, list[View]]:
        """Maps ``(V, GRID, GRID)`` in all views, the share of each cell that is seen, and the views in their order."""
        maps, seen, views = [], [], []
        for zoom in zooms:
            cells = [np.concatenate([_cells(zoom, shift) for shift in shifts]) for shifts in (downs, rights)]
            maps.append(_pooled(self.edges, *cells))
            seen.append(_pooled(self.seen, *cells))
            views += [View(float(zoom), float(down), float(right)) for down, right in product(downs, rights)]
        return np.concatenate(maps), np.concatenate(seen), views


def edge_map(image: FloatArray) -> Maps:
    """The map ``(GRID, GRID)`` of one image ``(H, W)`` in [-1, 1]; its flat areas have no edges but their borders."""
    described = _described(image)
    edges = _binned(_directions(described, np.ones(described.shape, dtype=bool)))
    return np.asarray(_pooled(edges, _cells(1, 0), _cells(1, 0))[0])


def turned(maps: Maps, form: int) -> Maps:
    """Maps ``(…, GRID, GRID)`` of an image as those of the image in one of its `FORMS`: mirrored first, then turned.

    A mirror image changes the sign of a direction; a quarter turn adds 90° to it, so 180° to its double.
    """
    mirrored = np.conj(maps[..., ::-1]) if form >= FORMS // 2 else maps
    return np.asarray((-1) ** form * np.rot90(mirrored, form % 4, (-2, -1)), dtype=np.complex64)


def turned_shares(shares: FloatArray, form: int) -> FloatArray:
    """Like `turned`, for numbers that are not directions."""
    return np.asarray(np.rot90(shares[..., ::-1] if form >= FORMS // 2 else shares, form % 4, (-2, -1)))


def turned_back(maps: Maps, form: int) -> Maps:
    """The inverse of `turned`."""
    straight = (-1) ** form * np.rot90(maps, -form % 4, (-2, -1))
    return np.asarray(np.conj(straight[..., ::-1]) if form >= FORMS // 2 else straight, dtype=np.complex64)


@lru_cache(maxsize=4096)  # the views that the gate needs repeatedly
def _cells(zoom: float, shift: float) -> FloatArray:
    """The share of each bin of a side that lies in each cell, in a view: ``(GRID, bins)``."""
    cells = np.linspace(0, _SIDE, GRID + 1)
    bins = (np.arange(0, _SIDE + 1, _BIN) - _SIDE / 2) * zoom + _SIDE / 2 + shift
    overlap = np.minimum(cells[1:, None], bins[1:]) - np.maximum(cells[:-1, None], bins[:-1])
    return np.asarray(np.maximum(overlap, 0) * GRID / _SIDE, dtype=np.float32)


def _described(image: FloatArray) -> FloatArray:
    return resize(np.asarray(image, dtype=np.float32), _SIDE, "bilinear")


def _flat(image: FloatArray) -> BoolArray:
    """The flat areas of an image, with their borders."""
    even = ndimage.maximum_filter(image, 5) - ndimage.minimum_filter(image, 5) < _EVEN
    squares = ndimage.minimum_filter(even, _FLAT - 4)  # middles of flat squares; the range was of 5 × 5 pixels
    return np.asarray(ndimage.maximum_filter(squares, _FLAT + 2 * _BORDER), dtype=bool)


def _directions(image: FloatArray, seen: BoolArray) -> Maps:
    right = ndimage.gaussian_filter(image, _EDGE, order=(0, 1))
    down = ndimage.gaussian_filter(image, _EDGE, order=(1, 0))
    gradient = np.asarray(right + 1j * down, dtype=np.complex64)
    strength = np.abs(gradient) * seen
    around = ndimage.gaussian_filter(strength, _SURROUNDINGS)
    if not seen.all():
        around /= np.maximum(ndimage.gaussian_filter(seen.astype(np.float32), _SURROUNDINGS), np.float32(0.05))
    scale = strength * (strength + _SHARE * around + _FLOOR)
    return np.asarray(gradient * gradient * seen / np.maximum(scale, np.float32(1e-9)), dtype=np.complex64)


def _binned(pixels: npt.NDArray[np.inexact]) -> npt.NDArray[np.inexact]:
    bins = _SIDE // _BIN
    return pixels.reshape(bins, _BIN, bins, _BIN).mean(axis=(1, 3))


def _pooled(bins: npt.NDArray[np.inexact], down: FloatArray, right: FloatArray) -> npt.NDArray[np.inexact]:
    """Averages over cells of each shift, ``(S·GRID, bins)`` down and right: ``(S·S, GRID, GRID)``."""
    pooled = (down @ bins @ right.T).reshape(len(down) // GRID, GRID, len(right) // GRID, GRID)
    return pooled.transpose(0, 2, 1, 3).reshape(-1, GRID, GRID)
