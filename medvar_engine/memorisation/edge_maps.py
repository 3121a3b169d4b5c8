"""Edge maps: the local directions of edges in a slice, independent of window, gamma and polarity.

Every pixel is represented by a complex number with twice the angle of its gradient (Bigün & Granlund, ICCV 1987), so
that edges from dark to bright and from bright to dark are equal. Its magnitude is the gradient strength relative to the
surroundings, which reduces the effect of contrast. The map consists of averages over a coarse grid.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medvar_engine.encoders.preprocessing import resize
from medvar_engine.types import BoolArray, FloatArray, IntArray

GRID = 24  # cells per side of a map
ZOOMS = np.exp(np.linspace(np.log(3 / 4), np.log(4 / 3), 7))  # zoom factors at which an image is compared
FORMS = 8  # rotations by multiples of 90°, and their mirror images
_SIDE = 128  # pixels per side to which images are resized
_SHIFTS = (-7, 0, 7)  # shifts in pixels, in both directions
_EDGE = 1.5  # standard deviation of the derivative of a Gaussian, in pixels
_SURROUNDINGS = 8.0  # standard deviation of the surroundings, in pixels
_SHARE = np.float32(0.7)  # relative strength at which an edge has a magnitude of one half
_FLOOR = np.float32(0.004)  # gradient per pixel below which there is only noise
_MARGIN = 3  # pixels at the border of a zoomed image that depend on its padding

Maps = npt.NDArray[np.complex64]


def edge_map(image: FloatArray) -> Maps:
    """The map ``(GRID, GRID)`` of one image ``(H, W)`` in [-1, 1]."""
    return np.asarray(_pooled(_directions(_described(image)), _CELLS)[0])


def views(image: FloatArray) -> tuple[Maps, IntArray]:
    """The maps ``(V, GRID, GRID)`` of an image in all forms, zooms and shifts, and the index in `ZOOMS` of each.

    The first axis is ordered by form, then zoom, then shift; `as_it_is` selects those that are only rotated or
    mirrored.
    """
    described, maps, zooms = _described(image), [], []
    for number, zoom in enumerate(ZOOMS):
        maps.append(_pooled(_directions(_zoomed(described, float(zoom))) * _seen(float(zoom)), _SHIFTED))
        zooms += [number] * len(_SHIFTS) ** 2
    return np.concatenate(list(_forms(np.concatenate(maps)))), np.tile(np.array(zooms, dtype=np.int64), FORMS)


def as_it_is(views: Maps) -> Maps:
    """The eight of `views` that are neither zoomed nor shifted."""
    each = len(ZOOMS) * len(_SHIFTS) ** 2
    return views[each // 2 :: each]


def _cells(shift: int) -> FloatArray:
    """The weight of each pixel of a side in each cell: ``(GRID, pixels)``.

    The image is shifted by ``shift`` pixels; the new margin has no edges.
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
    """Zoom about the centre; the margin repeats the border, and is masked by `_seen`."""
    if abs(zoom - 1) < 1e-6:
        return image
    if zoom < 1:
        image = ndimage.gaussian_filter(image, 0.4 * (1 / zoom - 1))
    middle = (_SIDE - 1) / 2
    inverse = 1 / zoom
    moved = ndimage.affine_transform(image, [inverse, inverse], middle - middle * inverse, order=1, mode="nearest")
    return np.asarray(moved, dtype=np.float32)


def _seen(zoom: float) -> BoolArray:
    """The pixels of a zoomed image that are inside the original image."""
    seen = np.ones((_SIDE, _SIDE), dtype=bool)
    if zoom < 1 - 1e-6:
        half = int(_SIDE * zoom / 2) - _MARGIN
        seen[:] = False
        seen[_SIDE // 2 - half : _SIDE // 2 + half, _SIDE // 2 - half : _SIDE // 2 + half] = True
    return seen


def _forms(maps: Maps) -> Iterator[Maps]:
    """All rotations and mirror images of maps: a quarter turn adds 180° to the doubled angle, a mirror negates it."""
    for mirrored in (maps, np.conj(maps[:, :, ::-1])):
        for turns in range(4):
            yield np.asarray((-1) ** turns * np.rot90(mirrored, turns, (1, 2)), dtype=np.complex64)
