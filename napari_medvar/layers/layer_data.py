"""Pictures as the tuples in which napari takes layers from readers and sample data."""

from __future__ import annotations

from typing import Any

from medvar_engine.bundle.read import Bundle
from napari_medvar.layers.image_layers import METADATA, about, shown_values
from napari_medvar.session.image_space import Scene
from napari_medvar.session.previews import Preview

LayerData = tuple[Any, dict[str, Any], str]


def layer_data(preview: Preview, bundle: Bundle, name: str, *, visible: bool = True, **more: str) -> LayerData:
    """One picture in its units and mm, with its trace; ``more`` goes into the layer's metadata."""
    scene = preview.node.scene or Scene.of(bundle, preview.trace.request.condition)
    attributes: dict[str, Any] = {"name": name, "visible": visible, **scene.placement.world(len(preview.pixels))}
    attributes["metadata"] = {METADATA: {**about(preview, scene), **more}}
    array = scene.placement.array(shown_values(preview.pixels, scene))
    if preview.pixels.ndim == 3:
        return array, {**attributes, "rgb": True}, "image"
    limits = [scene.display.low, scene.display.high]
    return array, {**attributes, "contrast_limits": limits, "colormap": "gray"}, "image"
