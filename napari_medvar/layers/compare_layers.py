"""`CompareLayers`: shows two images side by side in napari's grid, with linked pan and zoom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_medvar.layers.image_layers import CAPTION, METADATA, put, world_in
from napari_medvar.layers.zoom_to_fit import Fitting, ViewState
from napari_medvar.session.image_space import ImageSpace

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

    from medvar_engine.types import FloatArray

_SIDES = ("A", "B")
_LONGEST = 40  # letters of a caption


class CompareLayers:
    """The two layers of a comparison, created when first needed. GUI thread only."""

    def __init__(self, viewer: napari.Viewer, fitting: Fitting) -> None:
        self._viewer, self._fitting = viewer, fitting
        self._layers: dict[str, Image] = {}
        self._hidden: list[Layer] = []
        self._selected: list[Layer] = []
        self._before: ViewState | None = None

    @property
    def shown(self) -> bool:
        """Whether a comparison is shown."""
        return bool(self._layers)

    @property
    def incomplete(self) -> bool:
        """Whether the user has deleted a layer of the comparison."""
        return any(layer not in self._viewer.layers for layer in self._layers.values())

    def show(
        self,
        images: tuple[FloatArray, FloatArray],
        names: tuple[str, str],
        image_spaces: tuple[ImageSpace, ImageSpace],
    ) -> None:
        """Show only these two images ``(H, W)`` or ``(H, W, 3)`` in [-1, 1]; other layers are hidden until `close`."""
        if not self.shown:
            self._hidden = [layer for layer in self._viewer.layers if layer.visible]
            self._selected = list(self._viewer.layers.selection)
            self._before = self._fitting.view()
            for layer in self._hidden:
                layer.visible = False
        for side, pixels, name, image_space in zip(_SIDES, images, names, image_spaces, strict=True):
            array = image_space.placement.array(image_space.display.values(pixels))
            limits = (image_space.display.low, image_space.display.high)
            caption = _short(f"{side} · {name}")
            if side in self._layers and self._layers[side] in self._viewer.layers:
                layer = self._layers[side]
                layer.data, layer.name = array, caption
                put(layer, world_in(self._viewer, image_space.placement, len(pixels)))
            else:
                layer = self._viewer.add_image(
                    array,
                    name=caption,
                    colormap="gray",
                    contrast_limits=limits,
                    metadata={METADATA: {"trace": None, "compare": side, "synthetic": True}},
                    **world_in(self._viewer, image_space.placement, len(pixels)),
                )
                layer.name_overlay.font_size = CAPTION
                layer.name_overlay.visible = True
                self._layers[side] = layer
            layer.visible = True
        grid = self._viewer.canvas.grid
        grid.stride, grid.shape, grid.enabled = 1, (1, 2), True  # the lower layer, A, on the left
        self._fitting.fit(list(self._layers.values()))

    def close(self) -> None:
        """End the comparison, and restore the visible and selected layers."""
        if not self.shown:
            return
        grid = self._viewer.canvas.grid
        grid.enabled, grid.shape, grid.stride = False, (-1, -1), 1
        for layer in self._layers.values():
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._layers.clear()
        for layer in self._hidden:
            if layer in self._viewer.layers:
                layer.visible = True
        self._viewer.layers.selection.update(layer for layer in self._selected if layer in self._viewer.layers)
        if self._before is not None:
            self._fitting.go_back(self._before)


def _short(name: str) -> str:
    """The caption, shortened to half of the canvas."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1].rstrip()}…"


def difference(images: tuple[FloatArray, FloatArray]) -> float:
    """The mean absolute difference of two images, in per cent of the range [-1, 1]."""
    return float(np.abs(images[0] - images[1]).mean() * 50)
