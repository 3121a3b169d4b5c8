"""Edge maps: which way the edges of a slice run, place by place, whatever its window, gamma or polarity.

Every pixel gets the direction of its gradient at twice its angle, as a complex number (Bigün & Granlund, ICCV 1987):
an edge from dark to bright and one from bright to dark are then the same. Its length is the gradient's strength
compared with that of its surroundings, so that contrast matters little. Averages over a coarse grid are the map.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medvar_engine.encoders.preprocessing import resize
from medvar_engine.types import BoolArray, FloatArray, IntArray

GRID = 24  # cells a side of a map
ZOOMS = np.exp(np.linspace(np.log(3 / 4), np.log(4 / 3), 7))  # in which an image is looked at
FORMS = 8  # rotations by right angles, and their mirror images
_SIDE = 128  # pixels a side at which images are described
_SHIFTS = (-7, 0, 7)  # pixels, each way
_EDGE = 1.5  # pixels, standard deviation of the derivative of a Gaussian
_SURROUNDINGS = 8.0  # pixels, likewise
_SHARE = np.float32(0.7)  # of the strength around, at which an edge counts half
_FLOOR = np.float32(0.004)  # a gradient a pixel below which there is no edge, but noise
_MARGIN = 3  # pixels at the side of a zoomed image that its padding reaches

Maps = npt.NDArray[np.complex64]


def edge_map(image: FloatArray) -> Maps:
    """The map ``(GRID, GRID)`` of one image ``(H, W)`` in [-1, 1]."""
    return np.asarray(_pooled(_directions(_described(image)), _CELLS)[0])


def views(image: FloatArray) -> tuple[Maps, IntArray]:
    """The maps ``(V, GRID, GRID)`` of an image in all forms, zooms and shifts, and for each which of `ZOOMS` it is.

    The first axis goes by form, then zoom, then shift; `as_it_is` picks those that are only turned or mirrored.
    """
    described, maps, zooms = _described(image), [], []
    for number, zoom in enumerate(ZOOMS):
        maps.append(_pooled(_directions(_zoomed(described, float(zoom))) * _seen(float(zoom)), _SHIFTED))
        zooms += [number] * len(_SHIFTS) ** 2
    return np.concatenate(list(_forms(np.concatenate(maps)))), np.tile(np.array(zooms, dtype=np.int64), FORMS)


def as_it_is(views: Maps) -> Maps:
    """Of `views` the eight that are neither zoomed nor shifted."""
    each = len(ZOOMS) * len(_SHIFTS) ** 2
    return views[each // 2 :: each]


def _cells(shift: int) -> FloatArray:
    """How much of each pixel of a side lies in each cell, as shares of the cell: ``(GRID, pixels)``.

    The image is moved by ``shift`` pixels; what comes in has no edges.
    """
    ends = np.linspace(0, _SIDE, GRID + 1)
    pixels = np.arange(_SIDE) + shift
    overlap = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    return np.asarray(np.maximum(overlap, 0) * GRID / _SIDE, dtype=np.float32)


_CELLS = np.stack([_cells(0)])
_SHIFTED = np.stack([_cells(shift) for shift in _SHIFTS])


def _described(image: FloatArray) -> FloatArray:
    return resize(np.asarray(image, dtype=np.float32), _SIDE, "bilinear")


def _directions(image: FloatArray) -> Maps:
    right = ndimage.gaussian_filter(image, _EDGE, order=(0, 1))
    down = ndimage.gaussian_filter(image, _EDGE, order=(1, 0))
    gradient = np.asarray(right + 1j * down, dtype=np.complex64)
    strength = np.abs(gradient)
    around = ndimage.gaussian_filter(strength, _SURROUNDINGS)
    scale = strength * (strength + _SHARE * around + _FLOOR)
    return np.asarray(gradient * gradient / np.maximum(scale, np.float32(1e-9)), dtype=np.complex64)


def _pooled(directions: Maps, cells: FloatArray) -> Maps:
    """Averages over cells ``(S, GRID, pixels)`` of each shift, down and right: ``(S·S, GRID, GRID)``."""
    shifts, flat = len(cells), cells.reshape(-1, cells.shape[2])
    pooled = (flat @ directions @ flat.T).reshape(shifts, GRID, shifts, GRID)
    return np.asarray(pooled.transpose(0, 2, 1, 3).reshape(-1, GRID, GRID), dtype=np.complex64)


def _zoomed(image: FloatArray, zoom: float) -> FloatArray:
    """About the middle; what comes in at the sides repeats the border, and `_seen` leaves it out."""
    if abs(zoom - 1) < 1e-6:
        return image
    if zoom < 1:
        image = ndimage.gaussian_filter(image, 0.4 * (1 / zoom - 1))
    middle = (_SIDE - 1) / 2
    inverse = 1 / zoom
    moved = ndimage.affine_transform(image, [inverse, inverse], middle - middle * inverse, order=1, mode="nearest")
    return np.asarray(moved, dtype=np.float32)


def _seen(zoom: float) -> BoolArray:
    """Where a zoomed image shows what is in the image."""
    seen = np.ones((_SIDE, _SIDE), dtype=bool)
    if zoom < 1 - 1e-6:
        half = int(_SIDE * zoom / 2) - _MARGIN
        seen[:] = False
        seen[_SIDE // 2 - half : _SIDE // 2 + half, _SIDE // 2 - half : _SIDE // 2 + half] = True
    return seen


def _forms(maps: Maps) -> Iterator[Maps]:
    """A quarter turn adds 90° to a direction, so 180° to its double; a mirror image changes its sign."""
    for mirrored in (maps, np.conj(maps[:, :, ::-1])):
        for turns in range(4):
            yield np.asarray((-1) ** turns * np.rot90(mirrored, turns, (1, 2)), dtype=np.complex64)
