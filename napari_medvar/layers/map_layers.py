"""`MapLayers`: shows one map over an image: differences, tokens, entropies or likelihoods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_medvar.layers.image_layers import CAPTION, METADATA, put, selection_kept, top_of_images, world_in
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.placement import Placement

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

Kind = Literal["difference", "tokens", "entropy", "likelihood", "anomaly"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_COLORMAPS = {"difference": "PiYG", "entropy": "viridis", "likelihood": "magma", "anomaly": "inferno"}
_LIMITS = (1, 1.5, 2, 2.5, 3, 4, 5, 6)  # with these, napari's colour bar has numbers on both sides of 0
_OPACITY = {"difference": 1.0, "tokens": 1.0, "entropy": 0.75, "likelihood": 0.75, "anomaly": 0.75}


class MapLayers:
    """The layer that all maps share. It is created with the first map and then updated in place. GUI thread only.

    Only the token map needs a layer of another type (Labels), which replaces it.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._placement: Placement | None = None
        left = [layer for layer in viewer.layers if "map" in layer.metadata.get(METADATA, {})]
        self._layer: Layer | None = left[0] if left else None

    def show(
        self, kind: Kind, name: str, values: npt.NDArray[Any], limits: tuple[float, float], image_space: ImageSpace
    ) -> None:
        """Show ``values`` ``(side, side)`` over the image, which they cover exactly.

        ``limits`` are the values at both ends of the colour map; token maps do not use them.
        """
        array, world = image_space.placement.array(values), world_in(self._viewer, image_space.placement, len(values))
        layer = self._present
        if (
            layer is None
            or layer.ndim != array.ndim
            or (kind == "tokens") != (layer.metadata[METADATA]["map"] == "tokens")
        ):
            self._remove()
            layer = self._layer = self._make(kind, array, world)
        else:
            layer.data = array
            put(layer, world)
        self._placement = image_space.placement
        layer.name, layer.opacity = name, _OPACITY[kind]
        layer.metadata[METADATA] = {"map": kind, "synthetic": True}
        if kind != "tokens":
            layer.colormap = _COLORMAPS[kind]
            layer.contrast_limits_range = limits
            layer.contrast_limits = limits
            layer.colorbar.visible = True
        layer.name_overlay.font_size, layer.name_overlay.visible = CAPTION, True
        if not layer.visible:
            layer.visible = True

    def place(self, image_space: ImageSpace) -> None:
        """Move to the image space of a new image; a map with another placement is removed."""
        if self._placement is not None and not self._placement.same_as(image_space.placement):
            self._placement = None
            self._remove()

    def hide(self) -> None:
        """Show no map."""
        if (layer := self._present) is not None and layer.visible:
            layer.visible = False

    # -- internals --------------------------------------------------------------------------------------------------

    @property
    def _present(self) -> Layer | None:
        """The layer; None if the user has deleted it."""
        return self._layer if self._layer is not None and self._layer in self._viewer.layers else None

    def _remove(self) -> None:
        if (layer := self._present) is not None:
            self._viewer.layers.remove(layer)
        self._layer = None

    def _make(self, kind: Kind, array: npt.NDArray[Any], world: dict[str, Any]) -> Layer:
        options = {"metadata": {METADATA: {"map": kind, "synthetic": True}}, **world}
        with selection_kept(self._viewer):
            if kind == "tokens":
                from napari.utils.colormaps import label_colormap

                # Token 0 is an ordinary token, not background.
                layer = self._viewer.add_labels(array, colormap=label_colormap(49, 0.5, background_value=-1), **options)
            else:
                layer = self._viewer.add_image(array, interpolation2d="nearest", blending="translucent", **options)
        layers = self._viewer.layers
        images = [place for place, other in enumerate(layers) if "scale" in other.metadata.get(METADATA, {})]
        layers.move(len(layers) - 1, max(images, default=top_of_images(self._viewer) - 1) + 1)
        return layer


def span(maps: tuple[npt.NDArray[np.float32], ...]) -> tuple[float, float]:
    """Limits from 0 to a high percentile of all scales, so that a colour means the same at every scale."""
    values = np.concatenate([scale.ravel() for scale in maps])
    return 0.0, max(float(np.percentile(values, 99.5)), 1e-3)


def span_around_zero(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Limits as far below 0 as above it, at round numbers that no value exceeds."""
    most = max(float(np.abs(values).max()), 1e-6)
    power = 10.0 ** np.floor(np.log10(most))
    limit = float(next((power * limit for limit in _LIMITS if power * limit >= most), 10 * power))
    return -limit, limit
