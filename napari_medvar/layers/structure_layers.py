"""Masks of structures as Labels layers: that of the current image, and one to paint on. GUI thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medvar_engine.masks.structures import MaskArray, Structures
from napari_medvar.layers.image_layers import METADATA, selection_kept, world_in
from napari_medvar.layers.masks import take_brush
from napari_medvar.session.placement import Placement

if TYPE_CHECKING:
    import napari
    from napari.layers import Labels

NAME = "structures"
_OPACITY = 0.45


class StructureLayers:
    """The Labels layer that holds the mask of the current image. The user may paint on it and generate from it."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None

    def show(self, mask: MaskArray, structures: Structures, placement: Placement) -> Labels:
        """Put a mask ``(H, W)`` into the layer, which is created if there is none."""
        values = placement.array(mask)
        if self._layer is not None and self._layer not in self._viewer.layers:
            self._layer = None
        if self._layer is not None and self._layer.data.shape == values.shape:
            self._layer.data = values
            return self._layer
        if self._layer is not None:  # of a model of another size
            self._viewer.layers.remove(self._layer)
        with selection_kept(self._viewer):
            self._layer = self._viewer.add_labels(
                values,
                name=NAME,
                opacity=_OPACITY,
                metadata={METADATA: {"structures": True}},
                **_named(structures),
                **world_in(self._viewer, placement, placement.size),
            )
        return self._layer

    def paint(self, structures: Structures, placement: Placement) -> Labels:
        """The layer with the brush selected; a new, empty layer if there is none."""
        if self._layer is None or self._layer not in self._viewer.layers:
            self.show(np.zeros((placement.size, placement.size), dtype=np.uint8), structures, placement)
        assert self._layer is not None
        self._layer.selected_label = 1
        take_brush(self._viewer, self._layer)
        return self._layer


def _named(structures: Structures) -> dict[str, Any]:
    """Colours, and the names that napari shows under the pointer."""
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, Any] = {None: np.zeros(4), 0: np.zeros(4)}
    colours |= {value: np.array([*one.rgb, 255]) / 255 for value, one in enumerate(structures, 1)}
    names = ["none", *(one.name for one in structures)]
    return {
        "colormap": DirectLabelColormap(color_dict=colours),
        "features": {"index": np.arange(len(names)), "name": names},
    }
