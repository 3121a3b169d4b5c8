"""`ScaleLayers`: shows images in napari with one Image layer per scale, which is created once and updated in place.

Creating ten layers takes seconds and updating them little time, so layers are reused. An image with another number of
axes, such as a slice of a volume, gets new layers: napari would show a reused layer at its old slice until the
viewer's sliders move.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from medvar_engine.generate.trace import Trace
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray
from medvar_engine.value_range import ValueRange
from napari_medvar.layers.units import agreed_units
from napari_medvar.layers.zoom_to_fit import Fitting
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.placement import Placement
from napari_medvar.session.previews import Preview

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

METADATA = "medvar"
_SHARED = ("colormap", "gamma", "contrast_limits", "contrast_limits_range")  # the same for all scales
CAPTION = 8  # font size of a name in the canvas, in points
_THUMBNAIL = 32  # pixels per side, as in napari
_OURS = re.compile(r"scale (\d+) · (\d+)×\2")


def layer_name(schedule: ScaleSchedule, k: int) -> str:
    """The name of the layer of scale k, e.g. ``scale 4 · 5×5``."""
    return f"scale {k} · {schedule[k]}×{schedule[k]}"


def trace_of(layer: Layer) -> Trace | None:
    """The trace of the image in ``layer``; None for a layer that MedVAR did not make."""
    text = layer.metadata.get(METADATA, {}).get("trace")
    return None if text is None else Trace.from_json(text)


def about(preview: Preview, image_space: ImageSpace) -> dict[str, Any]:
    """The metadata of a layer that shows ``preview``."""
    own = {} if preview.node.image_space is None else {"scene": image_space.to_dict()}
    return {
        "trace": preview.trace.to_json(),
        "scale": preview.k,
        "synthetic": not preview.trace.encoded,
        "bundle": image_space.bundle,
        **own,
    }


def put(layer: Layer, world: dict[str, Any]) -> None:
    """Set the position of a layer in the world."""
    for name, value in world.items():
        setattr(layer, name, value)


def world_in(viewer: napari.Viewer, placement: Placement, side: int) -> dict[str, Any]:
    """The attributes of a layer with ``side`` tokens or pixels per side that covers the image in ``viewer``.

    Units are those of the other layers in the viewer: with mixed units napari warns at every layer and ignores all
    units.
    """
    return {**placement.world(side), "units": agreed_units(viewer, placement.units, METADATA)}


def top_of_images(viewer: napari.Viewer) -> int:
    """The index in the layer list for a new image: above all images, below the masks over them."""
    from napari.layers import Image

    others = [place for place, layer in enumerate(viewer.layers) if METADATA not in layer.metadata]
    return max((place for place in others if isinstance(viewer.layers[place], Image)), default=-1) + 1


@contextmanager
def selection_kept(viewer: napari.Viewer) -> Iterator[None]:
    """Keep the selection, if there is one, while layers are added in this context."""
    selection = viewer.layers.selection
    before, active = list(selection), selection.active
    yield
    if kept := [layer for layer in before if layer in viewer.layers]:
        selection.clear()
        selection.update(kept)
        selection.active = active


class ScaleLayers:
    """The layers of the current image in one viewer. GUI thread only."""

    def __init__(self, viewer: napari.Viewer, fitting: Fitting) -> None:
        self._viewer, self._fitting = viewer, fitting
        self._layers: dict[int, Image] = _left_over(viewer)
        self._image_space: ImageSpace | None = None
        self._shown: int | None = None  # the scale made visible last
        self._stale: set[int] = set()  # scales that were made but not decoded
        self._seen: int | None = None  # the image that the view was moved to last

    @property
    def image_space(self) -> ImageSpace | None:
        """The image space of the image that the layers show."""
        return self._image_space

    def show(self, preview: Preview, image_space: ImageSpace, *, reveal: bool) -> None:
        """Put a preview into its layer; with ``reveal``, make that layer visible instead of the one before."""
        schedule, k = preview.trace.pyramid.schedule, preview.k
        self._forget_deleted(len(schedule))
        self._apply(image_space)
        values = shown_values(preview.pixels, image_space)
        layer = self._layers.get(k)
        if layer is None or layer.rgb != (values.ndim == 3):
            self._make(k, layer_name(schedule, k), values, image_space, visible=reveal)
        else:
            layer.data = image_space.placement.array(values)
            layer.name = layer_name(schedule, k)
        self._stale.discard(k)
        self._describe(preview, image_space)
        if not (reveal or self._layers[k].visible):
            self._draw_thumbnail(k)
        if reveal:
            if self._shown != k:
                self._hide(self._shown)
            self._reveal(k)
            if self._seen != preview.node.id:
                self._seen = preview.node.id
                self._bring_into_sight(k)
        if preview.newest:
            self._blank([j for j, finer in self._layers.items() if j > k and finer.visible])  # hidden layers can wait

    def show_only(self, k: int | None) -> None:
        """Show scale k only, or no scale.

        napari updates its scene once for each layer. Its `batched_update` would update it once for all of them, but
        also collects garbage, which takes much longer.
        """
        self._forget_deleted()
        for other in self._layers:
            if other != k:
                self._hide(other)
        if k in self._layers:
            self._reveal(k)

    def select_shown(self) -> None:
        """Select the visible scale, so that napari shows its layer controls, unless other layers are selected.

        This is the slowest part of a change of scale in napari, so it is done when the slider is at rest.
        """
        self._forget_deleted()
        selection, layer = self._viewer.layers.selection, self._layers.get(-1 if self._shown is None else self._shown)
        ours = not selection or selection.active in self._layers.values()
        if ours and layer is not None and layer.visible and selection.active is not layer:
            selection.active = layer

    def blank_from(self, depth: int) -> None:
        """Empty the layers of scales that are not made yet, which still show the image before."""
        self._forget_deleted()
        self._blank([k for k in self._layers if k >= depth])

    def show_all(self, depth: int) -> None:
        """Show all ``depth`` scales made so far."""
        self._forget_deleted()
        for k, layer in self._layers.items():
            if layer.visible != (k < depth):
                layer.visible = k < depth

    def caption(self, on: bool) -> None:
        """Show or hide the name of every scale in the canvas."""
        self._forget_deleted()
        for layer in self._layers.values():
            if layer.name_overlay.visible != on:
                layer.name_overlay.font_size = CAPTION
                layer.name_overlay.visible = on

    def values(self, k: int) -> FloatArray | None:
        """The values of scale k as its layer shows them; None when there are none."""
        self._forget_deleted()
        if self._image_space is None or k not in self._layers:
            return None
        return np.asarray(self._image_space.placement.image(np.asarray(self._layers[k].data)))

    def all(self) -> list[Image]:
        """All layers, from coarse to fine."""
        self._forget_deleted()
        return [self._layers[k] for k in sorted(self._layers)]

    def bring_to_front(self) -> None:
        """Move the layers above all other images, with the maps and masks that lie over them."""
        from napari.layers import Labels, Shapes

        layers, scales = self._viewer.layers, self.all()
        if not scales:
            return
        lowest = min(map(layers.index, scales))
        if lowest >= top_of_images(self._viewer):
            return
        raised = [
            layer
            for layer in list(layers)[lowest:]
            if layer in scales or "map" in layer.metadata.get(METADATA, {}) or isinstance(layer, Labels | Shapes)
        ]
        for layer in reversed(raised):
            layers.move(layers.index(layer), top_of_images(self._viewer))

    def clear(self) -> None:
        """Show no image, after undo has removed it."""
        self.blank_from(0)

    def forget(self, k: int) -> None:
        """Mark the content of the layer of scale k as outdated."""
        self._stale.add(k)

    def missing(self, depth: int) -> list[int]:
        """Scales below ``depth`` that must be decoded again: the layer was deleted, or the scale was not decoded."""
        self._forget_deleted()
        return [k for k in range(depth) if k not in self._layers or k in self._stale]

    # -- internals --------------------------------------------------------------------------------------------------

    def _make(self, k: int, name: str, values: FloatArray, image_space: ImageSpace, *, visible: bool) -> None:
        if old := self._layers.pop(k, None):  # greyscale and colour images need different layers
            self._viewer.layers.remove(old)
        limits = (image_space.display.low, image_space.display.high)
        options: dict[str, Any] = {"rgb": True}
        if values.ndim == 2:
            options = {"rgb": False, "colormap": "gray", "contrast_limits": limits}
        array, world = image_space.placement.array(values), world_in(self._viewer, image_space.placement, len(values))
        about = {METADATA: {"trace": None, "scale": k, "synthetic": True}}
        with selection_kept(self._viewer):
            layer = self._viewer.add_image(array, name=name, visible=visible, metadata=about, **world, **options)
        if values.ndim == 2:
            layer.contrast_limits_range = limits
            self._link(layer)
        self._group(k)
        self._layers[k] = layer
        if len(self._layers) == 1:
            self._fitting.fit([layer])

    def _link(self, layer: Image) -> None:
        """Give a new layer the contrast and colours of the others, and link it with each of them.

        A link to only one of them would end when the user deletes that one.
        """
        if others := [other for other in self._layers.values() if not other.rgb]:
            for name in reversed(_SHARED):  # the range before the limits in it
                setattr(layer, name, getattr(_unwrapped(others[0]), name))
            self._viewer.layers.link_layers([layer, *others], _SHARED)

    def _bring_into_sight(self, k: int) -> None:
        """Make a new image visible, even if another was opened over it or beside it in the meantime."""
        layers = self._viewer.layers
        if not self._viewer.canvas.grid.enabled:
            if layers.index(self._layers[k]) < top_of_images(self._viewer):
                self.bring_to_front()
            self._fitting.fit_unseen(self._layers[k])

    def _group(self, k: int) -> None:
        """Keep all scales together in the list, coarse to fine, even if other layers were added or deleted."""
        layers = self._viewer.layers
        if finer := [other for j, other in self._layers.items() if j > k]:
            place = min(map(layers.index, finer))
        elif self._layers:
            place = max(map(layers.index, self._layers.values())) + 1
        else:
            place = top_of_images(self._viewer)
        layers.move(len(layers) - 1, place)

    def _apply(self, image_space: ImageSpace) -> None:
        """Apply an image space. Contrast limits set by the user are reset only when the values change.

        An edit may keep coarse scales and change what pixel values stand for, so the values of all layers are adapted.
        """
        before, self._image_space = self._image_space, image_space
        for k in [k for k, layer in self._layers.items() if layer.ndim != image_space.placement.ndim]:
            self._viewer.layers.remove(self._layers.pop(k))
        if before is None or not before.placement.same_as(image_space.placement):
            for layer in self._layers.values():
                layer.data = image_space.placement.array(
                    _square(layer)
                )  # overwritten soon, but it must have the right shape now
                put(layer, world_in(self._viewer, image_space.placement, max(layer.data.shape)))
            if self._layers and before is not None:
                self._fitting.fit(list(self._layers.values()))
        if before is None or before.display != image_space.display:
            for k, layer in self._layers.items():
                if not layer.rgb:
                    if before is not None:
                        old = ValueRange(before.display.low, before.display.high, before.display.unit)
                        layer.data = image_space.display.values(old.to_image(np.asarray(layer.data)))
                    layer.contrast_limits_range = (image_space.display.low, image_space.display.high)
                    layer.contrast_limits = (image_space.display.low, image_space.display.high)
                    self._draw_thumbnail(k)

    def _describe(self, preview: Preview, image_space: ImageSpace) -> None:
        """Store the newest trace in every layer of the image."""
        made = about(preview, image_space)
        for k, layer in self._layers.items():
            if k < preview.node.depth:
                layer.metadata[METADATA] = {**made, "scale": k}

    def _blank(self, scales: Sequence[int]) -> None:
        for k in scales:
            layer = self._layers[k]
            if layer.metadata.get(METADATA, {}).get("trace") is not None:
                limits = layer.contrast_limits  # of a layer left by a closed widget, whose image space is not known
                low = limits[0] if self._image_space is None else self._image_space.display.low
                layer.data = np.full_like(layer.data, 0 if layer.rgb else low)
                self._draw_thumbnail(k)
                layer.metadata[METADATA] = {"trace": None, "scale": k, "synthetic": True}

    def _draw_thumbnail(self, k: int) -> None:
        """Update the thumbnail of a hidden layer, because napari does so for visible layers only."""
        layer = self._layers[k]
        if layer.rgb:
            return
        space = self._image_space
        image = _square(layer) if space is None else space.placement.image(np.asarray(layer.data))
        places = np.arange(_THUMBNAIL) * len(image) // _THUMBNAIL
        low, high = layer.contrast_limits
        shares = np.clip((image[np.ix_(places, places)] - low) / (high - low), 0, 1)
        layer.thumbnail = (layer.colormap.map(shares.ravel()).reshape(_THUMBNAIL, _THUMBNAIL, 4) * 255).astype(np.uint8)

    def _hide(self, k: int | None) -> None:
        if k in self._layers and self._layers[k].visible and not self._viewer.canvas.grid.enabled:
            self._layers[k].visible = False

    def _reveal(self, k: int) -> None:
        if not self._layers[k].visible:
            self._layers[k].visible = True
        self._shown = k

    def _forget_deleted(self, scales: int | None = None) -> None:
        """Forget layers that the user deleted; for a model with fewer ``scales``, remove the superfluous layers."""
        here = set(map(id, map(_unwrapped, self._viewer.layers)))
        self._layers = {k: layer for k, layer in self._layers.items() if id(_unwrapped(layer)) in here}
        for k in [k for k in self._layers if scales is not None and k >= scales]:
            self._viewer.layers.remove(self._layers.pop(k))


def _left_over(viewer: napari.Viewer) -> dict[int, Image]:
    """Layers left by a widget that was closed, by scale, so that a new widget uses them again."""
    found = ((_OURS.fullmatch(layer.name), layer) for layer in viewer.layers if METADATA in layer.metadata)
    return {int(match[1]): layer for match, layer in found if match}


def _square(layer: Image) -> FloatArray:
    """The data of a layer as ``(H, W)`` or ``(H, W, 3)``, whatever its axes."""
    side = max(layer.data.shape)
    return np.asarray(layer.data).reshape((side, side, 3) if layer.rgb else (side, side))


def shown_values(pixels: FloatArray, image_space: ImageSpace) -> FloatArray:
    """The values that a layer shows: greyscale values in their unit, or colours in [0, 1]."""
    return (np.clip(pixels, -1, 1) + 1) / np.float32(2) if pixels.ndim == 3 else image_space.display.values(pixels)


def _unwrapped(layer: Any) -> Any:
    """The layer itself, because napari passes plugins a new proxy each time."""
    return getattr(layer, "__wrapped__", layer)
