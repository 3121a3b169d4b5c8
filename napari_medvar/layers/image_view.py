"""`ImageView`: shows the current image in the viewer, in the chosen view. GUI thread only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medvar_engine.types import FloatArray
from napari_medvar.layers.compare_layers import CompareLayers
from napari_medvar.layers.image_layers import METADATA, ScaleLayers
from napari_medvar.layers.map_layers import KINDS, MapLayers, span, span_around_zero
from napari_medvar.layers.units import agree
from napari_medvar.layers.zoom_to_fit import Fitting
from napari_medvar.panels.view_panel import View
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.previews import Preview
from napari_medvar.session.trace_tree import Node

if TYPE_CHECKING:
    import napari

COMPUTED: tuple[View, ...] = ("likelihood", "anomaly")  # maps that the model must compute
Maps = Mapping[View, tuple[FloatArray, ...]]


_CAPTIONS = {
    "difference": "added by scale {k}, {unit}",
    "tokens": "tokens · scale {k}",
    "entropy": "undecided, bits · scale {k}",
    "likelihood": "unlikely, bits · scale {k}",
    "anomaly": "anomaly, bits a token · all scales",
}


def caption(view: View, k: int, image_space: ImageSpace) -> str:
    """The name of a map in the layer list and in the canvas, with the unit of its colour bar."""
    unit = image_space.display.unit if image_space.display.unit == "HU" else "arbitrary units"
    return _CAPTIONS[view].format(k=k, unit=unit)


class ImageView:
    """The layers of the scales, the maps over them, and the comparison."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._fitting = Fitting(viewer)
        self.layers = ScaleLayers(viewer, self._fitting)
        self.maps = MapLayers(viewer)
        self.comparison = CompareLayers(viewer, self._fitting)
        self._grid = False  # whether this view has switched napari's grid on
        # When a layer is added, napari stores the units of its axes, then draws, and only then emits ``inserted``.
        self._events = viewer.dims.events.units, viewer.layers.events.inserted, viewer.layers.events.removed
        for event in self._events:
            event.connect(self._agree_on_units)  # napari keeps only a weak reference

    def show(self, preview: Preview, image_space: ImageSpace, *, reveal: bool) -> None:
        """Put a preview into its layer; with ``reveal``, make it visible."""
        self.layers.show(preview, image_space, reveal=reveal)
        self.maps.place(image_space)

    def look(self, view: View, node: Node | None, k: int, image_space: ImageSpace, computed: Maps) -> str:
        """Show scale k in a view; returns a line that explains it. ``computed`` holds the maps from the model."""
        if self.comparison.shown:
            return ""
        self._set_grid(view == "scales")
        if node is None or k >= node.depth:
            self.maps.hide()
            return ""
        if view == "scales":
            self.maps.hide()
            self.layers.show_all(node.depth)
            self.layers.caption(True)
            if k + 1 == node.depth:
                self._fitting.fit(self.layers.all())
            return ""
        self.layers.show_only(k)
        if view not in KINDS:
            self.maps.hide()
            return ""
        values, limits, note = self._map(view, node, k, image_space, computed)
        if values is None or limits is None:
            self.maps.hide()
        else:
            self.maps.show(view, caption(view, k, image_space), values, limits, image_space)
        return note

    def close(self) -> None:
        """Restore the state of the viewer."""
        self.comparison.close()
        self._set_grid(False)

    def leave_viewer(self) -> None:
        """Disconnect from the viewer."""
        self._fitting.leave_viewer()
        for event in self._events:
            event.disconnect(self._agree_on_units)

    # -- internals --------------------------------------------------------------------------------------------------

    def _map(
        self, view: View, node: Node, k: int, image_space: ImageSpace, computed: Maps
    ) -> tuple[np.ndarray | None, tuple[float, float] | None, str]:
        """The values of a map, the limits of its colours, and a line that explains it."""
        match view:
            case "difference":
                return self._difference(k, image_space)
            case "tokens":
                return node.trace.pyramid.maps[k][0], (0, 1), "One colour for each token."
            case "entropy" if k >= len(node.trace.entropy):
                return None, None, "Not available for a real image, because its tokens were not drawn by the model."
            case "entropy":
                limits = span(node.trace.entropy)
                return (
                    node.trace.entropy[k],
                    limits,
                    "Yellow: the model was undecided; another seed would give something else here.",
                )
        if view not in computed:
            return None, None, "The model computes this map…"
        maps = computed[view]
        limits = span(maps)
        if view == "anomaly":
            return maps[0], limits, "Bright: not what the model expects. It does not mean pathology."
        return maps[k], limits, "Bright: not what the model expected here."

    def _difference(self, k: int, image_space: ImageSpace) -> tuple[np.ndarray | None, tuple[float, float] | None, str]:
        now, before = self.layers.values(k), self.layers.values(k - 1) if k else None
        if now is None or before is None:
            return None, None, "The coarsest scale has no scale before it."
        values = now - before
        return values, span_around_zero(values), "Green: brighter than after the scale before. Pink: darker."

    def _agree_on_units(self, event: object = None) -> None:
        """Adapt the units after a layer was added or removed."""
        if self.layers.image_space is not None:
            agree(self._viewer, self.layers.image_space.placement.units, METADATA)

    def _set_grid(self, on: bool) -> None:
        grid = self._viewer.canvas.grid
        if on and not grid.enabled:
            grid.stride, grid.enabled, self._grid = 1, True, True  # from coarse to fine, the lowest layer first
        elif not on and self._grid:
            grid.enabled, self._grid = False, False
            self.layers.caption(False)
            self._fitting.fit(self.layers.all())
