"""`Overlay`: aligns an image with a training slice as well as possible, and compares the two cell by cell.

The distance of the image to the slice is compared with its distance to the mean of similar slices of other patients. An
image of another patient is closer to the mean, because a slice also has individual features. A copy is closer to the
slice.
"""

from __future__ import annotations

import numpy as np

from medvar_engine.memorisation.areas import areas
from medvar_engine.memorisation.edge_maps import Directions, Maps, View
from medvar_engine.types import FloatArray

_ZOOM = 0.04  # zoom of the first step, as an exponent; the second step has half of it
_SHIFT = 2.4  # shift in pixels, likewise
_LEAST_SEEN = np.float32(0.15)  # least visible share of a cell
_NOTHING = np.float32(0.5)  # squared length of a difference that noise can cause
_FEW = np.array([0.5, *[4] * 10])  # squared length of the edges of an area at which their evidence counts half
_FEW_CELLS = 10  # visible cells of an area, likewise: where a mask leaves few, slices agree by chance
_Views = tuple[Maps, FloatArray, FloatArray, list[View]]


class Overlay:
    """One image with its views so far, because many slices are compared with it in the same views."""

    def __init__(self, image: Directions) -> None:
        self._image = image
        self._views_near: dict[tuple[View, float], _Views] = {}

    def fit(self, view: View, slice_map: Maps, others: Maps) -> FloatArray:
        """How many times closer the image is to ``slice_map`` than to ``others``, in each of the `areas` ``(A,)``.

        It is below 1 for most images of other patients, above 1 for a copy, and near 0 where hardly anything is
        visible. Both maps ``(GRID, GRID)`` are turned like the image, which is seen near ``view``.
        """
        for step in (1.0, 0.5):
            values, weights, edges, views = self._near(view, step)
            apart = (weights * _squared(values - slice_map)).sum(axis=(1, 2))
            there = edges + (weights * _squared(slice_map)).sum(axis=(1, 2))
            best = int((apart / np.maximum(there, _NOTHING)).argmin())
            view = views[best]
        image, weight = values[best], weights[best]
        parts = (_squared(image - others), _squared(image - slice_map), _squared(image), np.ones_like(weight))
        far, near, own, cells = (areas() @ np.stack([(weight * part).ravel() for part in parts], axis=1)).T
        evidence = own / (own + _FEW) * cells / (cells + _FEW_CELLS)
        return np.asarray((far + _NOTHING) / (near + _NOTHING) * evidence)

    def _near(self, view: View, step: float) -> _Views:
        """The image in views near ``view``, the weight of each cell, and the squared length of the edges."""
        if (view, step) not in self._views_near:
            steps = step * np.array([-1, 0, 1])
            maps, seen, views = self._image.views(
                view.zoom * np.exp(_ZOOM * steps), view.down + _SHIFT * steps, view.right + _SHIFT * steps
            )
            weights = np.where(seen > _LEAST_SEEN, seen, np.float32(0))
            values = np.asarray(maps / np.maximum(seen, _LEAST_SEEN), dtype=np.complex64)
            edges = (weights * _squared(values)).sum(axis=(1, 2))
            self._views_near[view, step] = values, weights, edges, views
        return self._views_near[view, step]


def alike(maps: Maps, one: Maps) -> FloatArray:
    """The similarity of ``one`` map to each of M maps: 1 for equal, 0 for unrelated."""
    lengths = _squared(maps).sum(axis=(1, 2)) + _squared(one).sum()
    return np.asarray(1 - _squared(maps - one).sum(axis=(1, 2)) / np.maximum(lengths, _NOTHING))


def _squared(maps: Maps) -> FloatArray:
    return np.asarray(maps.real**2 + maps.imag**2)
