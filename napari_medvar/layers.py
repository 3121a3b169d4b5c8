"""Pictures as napari layers: one Image layer a scale, made once and then updated in place; and back to a `Trace`.

Ten layers cost seconds to make and little to update, which is why none is ever made twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvar_engine.arrays import FloatArray
from medvar_engine.bundle import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.schedule import ScaleSchedule
from medvar_engine.trace import Trace
from napari_medvar.session import Preview

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

METADATA = "medvar"
_SHARED = ("contrast_limits", "contrast_limits_range", "gamma", "colormap")  # one window for all scales
_OURS = re.compile(r"scale (\d+) · (\d+)×\2")


@dataclass(frozen=True, slots=True)
class Display:
    """What pixels in [-1, 1] stand for: values and millimetres."""

    low: float = -1.0
    high: float = 1.0
    unit: str = "arbitrary"
    spacing_mm: float | None = None

    @classmethod
    def of(cls, bundle: Bundle, condition: Condition) -> Display:
        """How the training slices that fit ``condition`` were measured; arbitrary where they disagree.

        Without a modality, say, a picture may be CT or MR: to call its values HU would be made up.
        """
        asked = condition.to_dict().items()
        ranges = {(c.low, c.high, c.unit) for c in bundle.cells if asked <= c.condition.to_dict().items()}
        best = bundle.cell(condition)
        spacing = best.spacing_mm if best else None
        return cls(*ranges.pop(), spacing_mm=spacing) if len(ranges) == 1 else cls(spacing_mm=spacing)

    def values(self, pixels: FloatArray) -> FloatArray:
        """Pixels in [-1, 1] → values in ``unit``; colours → [0, 1]."""
        fraction: FloatArray = (np.clip(pixels, -1, 1) + 1) / np.float32(2)
        return fraction if pixels.ndim == 3 else self.low + fraction * np.float32(self.high - self.low)


def layer_name(schedule: ScaleSchedule, k: int) -> str:
    """E.g. ``scale 4 · 5×5``."""
    return f"scale {k} · {schedule[k]}×{schedule[k]}"


def trace_of(layer: Layer) -> Trace | None:
    """What made the picture in ``layer``; None for a layer that holds none of ours."""
    text = layer.metadata.get(METADATA, {}).get("trace")
    return None if text is None else Trace.from_json(text)


class ScaleLayers:
    """The layers of the current picture in one viewer. Call it from the GUI thread only."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._layers: dict[int, Image] = _left_over(viewer)
        self._display: Display | None = None
        self._shown: int | None = None  # the scale that we made visible last

    def show(self, preview: Preview, display: Display, *, reveal: bool) -> None:
        """Put one preview into its layer, and with ``reveal`` make that visible in place of the one before."""
        schedule, k = preview.generation.pyramid.schedule, preview.k
        self._forget_deleted(len(schedule))
        self._apply(display)
        values = display.values(preview.pixels)
        layer = self._layers.get(k)
        if layer is None or layer.rgb != (values.ndim == 3):
            self._make(k, layer_name(schedule, k), values, display, visible=reveal)
        else:
            layer.data = values
            layer.name = layer_name(schedule, k)
        self._describe(preview)
        if preview.newest:
            self._blank_from(k + 1)
        if reveal:
            if self._shown != k:
                self._hide(self._shown)
            self._reveal(k)

    def show_only(self, k: int) -> None:
        """Scale k alone; side by side in the grid, where several are meant to be seen, none is hidden."""
        self._forget_deleted()
        if k not in self._layers:
            return
        if not self._viewer.canvas.grid.enabled:
            for other in self._layers:
                if other != k:
                    self._hide(other)
        self._reveal(k)

    def clear(self) -> None:
        """No picture: what the layers held is undone."""
        self._forget_deleted()
        self._blank_from(0)

    def missing(self, depth: int) -> list[int]:
        """Scales below ``depth`` that have no layer, because it was deleted."""
        self._forget_deleted()
        return [k for k in range(depth) if k not in self._layers]

    # -- how ----------------------------------------------------------------------------------------------------

    def _make(self, k: int, name: str, values: FloatArray, display: Display, *, visible: bool) -> None:
        if old := self._layers.pop(k, None):  # grey and colour cannot share a layer
            self._viewer.layers.remove(old)
        options: dict[str, Any] = {"rgb": True}
        if values.ndim == 2:
            limits = [display.low, display.high]
            options = {"rgb": False, "colormap": "gray", "contrast_limits": limits}
        first = not self._layers
        finer = [layer for j, layer in self._layers.items() if j > k]
        active = self._viewer.layers.selection.active
        layer = self._viewer.add_image(values, name=name, visible=visible, **_world(display), **options)
        if active is not None and active not in self._layers.values():
            self._viewer.layers.selection.active = active  # somebody is at work on another layer
        if values.ndim == 2:
            layer.contrast_limits_range = (display.low, display.high)
        if finer:  # a deleted layer goes back to its place
            below = min(self._viewer.layers.index(layer) for layer in finer)
            self._viewer.layers.move(len(self._viewer.layers) - 1, below)
        self._layers[k] = layer
        if len(self._layers) > 1 and values.ndim == 2:
            self._viewer.layers.link_layers([layer, next(iter(self._layers.values()))], _SHARED)
        if first:
            self._viewer.reset_view()

    def _apply(self, display: Display) -> None:
        """Another condition may mean other units: then, and only then, windows set by hand are reset."""
        if display == self._display:
            return
        moved = self._display is not None and display.spacing_mm != self._display.spacing_mm
        self._display = display
        for layer in self._layers.values():
            for name, value in _world(display).items():
                setattr(layer, name, value)
            if not layer.rgb:
                layer.contrast_limits_range = (display.low, display.high)
                layer.contrast_limits = (display.low, display.high)
        if moved and self._layers:
            self._viewer.reset_view()

    def _describe(self, preview: Preview) -> None:
        """Every layer of the picture carries the newest trace."""
        text = preview.trace.to_json()
        for k, layer in self._layers.items():
            if k < preview.generation.depth:
                layer.metadata[METADATA] = {"trace": text, "scale": k, "synthetic": True}

    def _blank_from(self, depth: int) -> None:
        """Scales not made yet must not show those of the picture before."""
        for k, layer in self._layers.items():
            if k >= depth and layer.metadata.get(METADATA, {}).get("trace") is not None:
                layer.data = np.full_like(layer.data, 0 if layer.rgb or self._display is None else self._display.low)
                layer.metadata[METADATA] = {"trace": None, "scale": k, "synthetic": True}

    def _hide(self, k: int | None) -> None:
        if k in self._layers and not self._viewer.canvas.grid.enabled:
            self._layers[k].visible = False

    def _reveal(self, k: int) -> None:
        layer, selection = self._layers[k], self._viewer.layers.selection
        layer.visible = True
        if selection.active in self._layers.values():  # so that the layer controls belong to what is seen
            selection.active = layer
        self._shown = k

    def _forget_deleted(self, scales: int | None = None) -> None:
        """Layers that the user deleted; and, for a model of fewer ``scales``, remove those of the one before."""
        here = set(map(id, map(_unwrapped, self._viewer.layers)))
        self._layers = {k: layer for k, layer in self._layers.items() if id(_unwrapped(layer)) in here}
        for k in [k for k in self._layers if scales is not None and k >= scales]:
            self._viewer.layers.remove(self._layers.pop(k))


def _left_over(viewer: napari.Viewer) -> dict[int, Image]:
    """Layers that a widget closed since has left: it would be odd if a new one made them a second time."""
    found = ((_OURS.fullmatch(layer.name), layer) for layer in viewer.layers if METADATA in layer.metadata)
    return {int(match[1]): layer for match, layer in found if match}


def _world(display: Display) -> dict[str, Any]:
    spacing, unit = (display.spacing_mm, "mm") if display.spacing_mm else (1.0, "pixel")
    return {"scale": (spacing, spacing), "units": (unit, unit)}


def _unwrapped(layer: Any) -> Any:
    """The layer itself: napari hands plugins proxies, a new one each time."""
    return getattr(layer, "__wrapped__", layer)
