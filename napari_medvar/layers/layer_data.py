"""Images as the layer tuples that napari takes from readers and sample data."""

from __future__ import annotations

from typing import Any

from medvar_engine.bundle.read import Bundle
from napari_medvar.layers.image_layers import METADATA, about, shown_values
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.previews import Preview

LayerData = tuple[Any, dict[str, Any], str]


def layer_data(preview: Preview, bundle: Bundle, name: str, *, visible: bool = True, **more: str) -> LayerData:
    """The layer tuple of one image, in its units and mm, with its trace; ``more`` is added to the layer's metadata."""
    image_space = preview.node.image_space or ImageSpace.of(bundle, preview.trace.request.condition)
    attributes: dict[str, Any] = {"name": name, "visible": visible, **image_space.placement.world(len(preview.pixels))}
    attributes["metadata"] = {METADATA: {**about(preview, image_space), **more}}
    array = image_space.placement.array(shown_values(preview.pixels, image_space))
    if preview.pixels.ndim == 3:
        return array, {**attributes, "rgb": True}, "image"
    limits = [image_space.display.low, image_space.display.high]
    return array, {**attributes, "contrast_limits": limits, "colormap": "gray"}, "image"
