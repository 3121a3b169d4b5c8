"""Pictures as the tuples in which napari takes layers from readers and sample data."""

from __future__ import annotations

from typing import Any

import numpy as np

from medvar_engine.bundle import Bundle
from napari_medvar.layers import METADATA
from napari_medvar.preview import Preview
from napari_medvar.scene import Scene

LayerData = tuple[Any, dict[str, Any], str]


def layer_data(preview: Preview, bundle: Bundle, name: str, *, visible: bool = True, **more: str) -> LayerData:
    """One picture in its units and mm, with its trace; ``more`` goes into the layer's metadata."""
    scene = Scene.of(bundle, preview.trace.request.condition)
    world = scene.placement.world(scene.placement.size)
    attributes: dict[str, Any] = {"name": name, "visible": visible, "scale": world["scale"], "units": world["units"]}
    about = {"trace": preview.trace.to_json(), "scale": preview.k, "synthetic": True, "bundle": scene.bundle}
    attributes["metadata"] = {METADATA: {**about, **more}}
    if preview.pixels.ndim == 3:
        return (np.clip(preview.pixels, -1, 1) + 1) / np.float32(2), {**attributes, "rgb": True}, "image"
    limits = [scene.display.low, scene.display.high]
    return scene.display.values(preview.pixels), {**attributes, "contrast_limits": limits, "colormap": "gray"}, "image"
