"""`Fitting`: zooms to layers, and again when the canvas changes size, until the user zooms or pans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer


_ENOUGH = 0.5  # visible fraction of a layer, or of the canvas when it shows a detail


@dataclass(frozen=True, slots=True)
class ViewState:
    """A state of the camera and the layers in view."""

    center: tuple[float, ...]
    zoom: float
    layers: tuple[Layer, ...]  # the layers that were zoomed to
    fitted: tuple[float, ...] | None


class Fitting:
    """Controls the camera of one viewer. GUI thread only."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._layers: Sequence[Layer] = ()
        self._camera: tuple[float, ...] | None = None  # as set by `fit`
        viewer.canvas.events.size.connect(self._resized)  # napari keeps only a weak reference

    def leave_viewer(self) -> None:
        """Disconnect from the viewer."""
        self._viewer.canvas.events.size.disconnect(self._resized)

    def fit(self, layers: Sequence[Layer]) -> None:
        """Zoom to these layers; to all layers if the viewer has more axes than these (napari cannot do it then)."""
        self._layers = layers
        alike = all(layer.ndim == self._viewer.dims.ndim for layer in layers)
        self._viewer.reset_view(layers=layers if layers and alike else None)
        self._camera = self._now()

    def fit_unseen(self, layer: Layer) -> None:
        """Zoom to a layer that is out of view, such as a new image beside a scan; otherwise change nothing."""
        axes = [axis - self._viewer.dims.ndim for axis in self._viewer.dims.displayed[-2:]]
        if min(axes) < -layer.ndim or self._viewer.dims.ndisplay != 2:
            return
        seen, extent = self._seen(), np.asarray(layer.extent.world)[:, axes]
        sides = np.minimum(seen[1], extent[1]) - np.maximum(seen[0], extent[0])
        shared = np.prod(np.clip(sides, 0, None))
        if shared < _ENOUGH * min(np.prod(seen[1] - seen[0]), np.prod(extent[1] - extent[0])):
            self.fit([layer])

    def view(self) -> ViewState:
        """The present view, for `go_back`."""
        camera = self._viewer.scene.camera
        return ViewState(tuple(camera.center), float(camera.zoom), tuple(self._layers), self._camera)

    def go_back(self, view: ViewState) -> None:
        """Restore an earlier view."""
        camera = self._viewer.scene.camera
        camera.center, camera.zoom = view.center, view.zoom
        self._layers, self._camera = view.layers, view.fitted

    def _resized(self, event: object = None) -> None:
        if self._camera is not None and np.allclose(self._now(), self._camera):
            self.fit([layer for layer in self._layers if layer in self._viewer.layers])

    def _seen(self) -> np.ndarray:
        """World coordinates ``(2, 2)`` of the canvas's corners: top left, bottom right."""
        camera = self._viewer.scene.camera
        half = np.array(self._viewer.canvas.size) / camera.zoom / 2
        centre = np.array(camera.center[-2:])
        return np.array([centre - half, centre + half])

    def _now(self) -> tuple[float, ...]:
        camera = self._viewer.scene.camera
        return (*camera.center, camera.zoom)
