"""`Overlay`: an image is laid over a training slice as well as possible, and the two are compared cell by cell.

Compared is how far the image is from the slice, and how far from the mean of similar slices of other patients. Of
different people the mean is nearer: an individual slice differs by its own features as well. Of a copy the slice is.
"""

from __future__ import annotations

import numpy as np

from medvar_engine.memorisation.areas import areas
from medvar_engine.memorisation.edge_maps import Directions, Maps, View
from medvar_engine.types import FloatArray

_ZOOM = 0.04  # as an exponent, of the first step; and half of it of the second
_SHIFT = 2.4  # pixels, likewise
_LEAST_SEEN = np.float32(0.15)  # share of a cell that must be seen
_NOTHING = np.float32(0.5)  # squared length that a difference may have by noise
_FEW = np.array([0.5, *[4] * 10])  # of each area, squared length of edges that halves what they prove
_Laid = tuple[Maps, FloatArray, FloatArray, list[View]]


class Overlay:
    """One image, and how it was laid so far: many slices are compared with it in the same views."""

    def __init__(self, image: Directions) -> None:
        self._image = image
        self._laid: dict[tuple[View, float], _Laid] = {}

    def fit(self, view: View, slice_map: Maps, others: Maps) -> FloatArray:
        """How many times nearer the image is to ``slice_map`` than to ``others``, in each of the `areas` ``(A,)``.

        It is below 1 for most images of other patients, above 1 for a copy, and 0 where hardly anything is to be seen.
        Both maps ``(GRID, GRID)`` are turned as the image is; it is seen as in ``view``, zoomed and shifted a little.
        """
        for step in (1.0, 0.5):
            values, weights, edges, views = self._near(view, step)
            apart = (weights * _squared(values - slice_map)).sum(axis=(1, 2))
            there = edges + (weights * _squared(slice_map)).sum(axis=(1, 2))
            best = int((apart / np.maximum(there, _NOTHING)).argmin())
            view = views[best]
        image, weight = values[best], weights[best]
        parts = (_squared(image - others), _squared(image - slice_map), _squared(image))
        far, near, own = (areas() @ np.stack([(weight * part).ravel() for part in parts], axis=1)).T
        return np.asarray((far + _NOTHING) / (near + _NOTHING) * own / (own + _FEW))

    def _near(self, view: View, step: float) -> _Laid:
        """The image in views near ``view``, the weight of each cell, and the squared length of the edges."""
        if (view, step) not in self._laid:
            steps = step * np.array([-1, 0, 1])
            maps, seen, views = self._image.views(
                view.zoom * np.exp(_ZOOM * steps), view.down + _SHIFT * steps, view.right + _SHIFT * steps
            )
            weights = np.where(seen > _LEAST_SEEN, seen, np.float32(0))
            values = np.asarray(maps / np.maximum(seen, _LEAST_SEEN), dtype=np.complex64)
            edges = (weights * _squared(values)).sum(axis=(1, 2))
            self._laid[view, step] = values, weights, edges, views
        return self._laid[view, step]


def alike(maps: Maps, one: Maps) -> FloatArray:
    """How like ``one`` map of M each is: 1 is the same, 0 unlike."""
    lengths = _squared(maps).sum(axis=(1, 2)) + _squared(one).sum()
    return np.asarray(1 - _squared(maps - one).sum(axis=(1, 2)) / np.maximum(lengths, _NOTHING))


def _squared(maps: Maps) -> FloatArray:
    return np.asarray(maps.real**2 + maps.imag**2)
