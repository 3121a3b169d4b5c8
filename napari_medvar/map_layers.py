"""What is shown over a picture: differences, tokens, entropies and likelihoods, one layer of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_medvar.layers import METADATA, put, world_in
from napari_medvar.placement import Placement
from napari_medvar.scene import Scene

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

Kind = Literal["difference", "tokens", "entropy", "likelihood", "anomaly"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_COLORMAPS = {"difference": "PiYG", "entropy": "viridis", "likelihood": "magma", "anomaly": "inferno"}
_OPACITY = {"difference": 1.0, "tokens": 1.0, "entropy": 0.75, "likelihood": 0.75, "anomaly": 0.75}


class MapLayers:
    """At most one layer a kind, made when first looked at and then updated in place. GUI thread only."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._placement: Placement | None = None
        self._layers: dict[str, Layer] = {
            kind: layer for layer in viewer.layers if (kind := layer.metadata.get(METADATA, {}).get("map")) is not None
        }

    def show(self, kind: Kind, name: str, values: npt.NDArray[Any], limits: tuple[float, float], scene: Scene) -> None:
        """``values`` ``(side, side)`` over the picture, which they cover exactly, and no other kind.

        ``limits`` are the values of the ends of the colour map; tokens have none.
        """
        self._forget_deleted()
        self._placement = scene.placement
        array, world = scene.placement.array(values), world_in(self._viewer, scene.placement, len(values))
        layer = self._layers.get(kind)
        if layer is None:
            layer = self._layers[kind] = self._make(kind, array, world)
        else:
            layer.data = array
            put(layer, world)
        layer.name = name
        if kind != "tokens":
            layer.contrast_limits_range = limits
            layer.contrast_limits = limits
        self._only(kind)

    def place(self, scene: Scene) -> None:
        """Hidden ones follow the picture, too: napari wants the units of all layers to agree."""
        self._forget_deleted()
        if self._placement is None or not self._placement.same_as(scene.placement):
            before, self._placement = self._placement, scene.placement
            if before is not None:
                for layer in self._layers.values():
                    layer.data = scene.placement.array(before.picture(np.asarray(layer.data)))
                    put(layer, world_in(self._viewer, scene.placement, max(layer.data.shape)))

    def hide(self) -> None:
        """None of them."""
        self._forget_deleted()
        self._only(None)

    def _only(self, kind: Kind | None) -> None:
        for other, layer in self._layers.items():
            if layer.visible != (other == kind):
                layer.visible = other == kind

    def _make(self, kind: Kind, array: npt.NDArray[Any], world: dict[str, Any]) -> Layer:
        active = self._viewer.layers.selection.active
        options = {"opacity": _OPACITY[kind], "metadata": {METADATA: {"map": kind}}, **world}
        if kind == "tokens":
            from napari.utils.colormaps import label_colormap

            # Token 0 is a token like any other, not background.
            layer = self._viewer.add_labels(array, colormap=label_colormap(49, 0.5, background_value=-1), **options)
        else:
            layer = self._viewer.add_image(
                array, colormap=_COLORMAPS[kind], interpolation2d="nearest", blending="translucent", **options
            )
        if active is not None:
            self._viewer.layers.selection.active = active
        return layer

    def _forget_deleted(self) -> None:
        here = {id(getattr(layer, "__wrapped__", layer)) for layer in self._viewer.layers}
        self._layers = {k: v for k, v in self._layers.items() if id(getattr(v, "__wrapped__", v)) in here}


def span(maps: tuple[npt.NDArray[np.float32], ...]) -> tuple[float, float]:
    """From 0 to what nearly all values of all scales stay below: one colour means the same at every scale."""
    values = np.concatenate([scale.ravel() for scale in maps])
    return 0.0, max(float(np.percentile(values, 99.5)), 1e-3)
