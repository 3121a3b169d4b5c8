"""`Fitting`: zooms to layers, and again when the canvas changes its size, until the user zooms or moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer


class Fitting:
    """The view of one viewer. Call it from the GUI thread only."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._layers: Sequence[Layer] = ()
        self._camera: tuple[float, ...] | None = None  # as `fit` left it
        viewer.canvas.events.size.connect(self._resized)  # napari holds this weakly

    def fit(self, layers: Sequence[Layer]) -> None:
        """Zoom to these layers; to all, when the viewer has more axes than they (which napari cannot do)."""
        self._layers = layers
        alike = all(layer.ndim == self._viewer.dims.ndim for layer in layers)
        self._viewer.reset_view(layers=layers if layers and alike else None)
        self._camera = self._now()

    def _resized(self, event: object = None) -> None:
        if self._camera is not None and np.allclose(self._now(), self._camera):
            self.fit([layer for layer in self._layers if layer in self._viewer.layers])

    def _now(self) -> tuple[float, ...]:
        camera = self._viewer.scene.camera
        return (*camera.center, camera.zoom)
