"""Pictures as napari layers and back: one Image layer a scale, made with its first picture and then updated in place.

Ten layers cost seconds to make and little to update, which is why none is made twice. But a picture of more axes or
fewer, such as a slice of a volume, gets new layers: napari would show an old one at its old slice until the viewer's
sliders move.
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
from napari_medvar.layers.units import agreed_units
from napari_medvar.layers.zoom_to_fit import Fitting
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.placement import Placement
from napari_medvar.session.previews import Preview

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

METADATA = "medvar"
_SHARED = ("contrast_limits", "contrast_limits_range", "gamma", "colormap")  # one window for all scales
CAPTION = 8  # points of a name in the canvas
_THUMBNAIL = 32  # pixels a side, as napari has it
_OURS = re.compile(r"scale (\d+) · (\d+)×\2")


def layer_name(schedule: ScaleSchedule, k: int) -> str:
    """E.g. ``scale 4 · 5×5``."""
    return f"scale {k} · {schedule[k]}×{schedule[k]}"


def trace_of(layer: Layer) -> Trace | None:
    """What made the picture in ``layer``; None for a layer that holds none of ours."""
    text = layer.metadata.get(METADATA, {}).get("trace")
    return None if text is None else Trace.from_json(text)


def about(preview: Preview, image_space: ImageSpace) -> dict[str, Any]:
    """What a layer of ours says of itself in its metadata."""
    own = {} if preview.node.image_space is None else {"scene": image_space.to_dict()}
    return {
        "trace": preview.trace.to_json(),
        "scale": preview.k,
        "synthetic": True,
        "bundle": image_space.bundle,
        **own,
    }


def put(layer: Layer, world: dict[str, Any]) -> None:
    """Place a layer."""
    for name, value in world.items():
        setattr(layer, name, value)


def world_in(viewer: napari.Viewer, placement: Placement, side: int) -> dict[str, Any]:
    """The attributes of a layer of ``side`` tokens or pixels a side that covers the picture, in that viewer.

    Beside layers of other units it has theirs: napari would warn at every layer, and draw without units.
    """
    return {**placement.world(side), "units": agreed_units(viewer, placement.units, METADATA)}


def top_of_images(viewer: napari.Viewer) -> int:
    """Where in the layer list a picture belongs: above everybody's images, below the masks that lie on them."""
    from napari.layers import Image

    others = [place for place, layer in enumerate(viewer.layers) if METADATA not in layer.metadata]
    return max((place for place in others if isinstance(viewer.layers[place], Image)), default=-1) + 1


@contextmanager
def selection_kept(viewer: napari.Viewer) -> Iterator[None]:
    """Layers added inside do not take the selection from somebody else's layers."""
    selection = viewer.layers.selection
    before, active = list(selection), selection.active
    yield
    if any(METADATA not in layer.metadata or "mask" in layer.metadata[METADATA] for layer in before):
        selection.clear()
        selection.update(layer for layer in before if layer in viewer.layers)
        selection.active = active


class ScaleLayers:
    """The layers of the current picture in one viewer. Call it from the GUI thread only."""

    def __init__(self, viewer: napari.Viewer, fitting: Fitting) -> None:
        self._viewer, self._fitting = viewer, fitting
        self._layers: dict[int, Image] = _left_over(viewer)
        self._image_space: ImageSpace | None = None
        self._shown: int | None = None  # the scale that we made visible last
        self._stale: set[int] = set()  # scales that were made, but whose picture was not
        self._seen: int | None = None  # the image that was brought into sight last

    @property
    def image_space(self) -> ImageSpace | None:
        """Where the picture lies that the layers show."""
        return self._image_space

    def show(self, preview: Preview, image_space: ImageSpace, *, reveal: bool) -> None:
        """Put one preview into its layer, and with ``reveal`` make that visible in place of the one before."""
        schedule, k = preview.generation.pyramid.schedule, preview.k
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
            self._blank([j for j, finer in self._layers.items() if j > k and finer.visible])  # hidden ones can wait

    def show_only(self, k: int | None) -> None:
        """Scale k alone, or none of them."""
        self._forget_deleted()
        for other in self._layers:
            if other != k:
                self._hide(other)
        if k in self._layers:
            self._reveal(k)

    def select_shown(self) -> None:
        """The layer controls belong to what is seen, unless they belong to a layer of somebody else's.

        Changing them takes napari longer than all else, so it is done when the slider rests.
        """
        self._forget_deleted()
        selection, layer = self._viewer.layers.selection, self._layers.get(-1 if self._shown is None else self._shown)
        ours = selection.active in self._layers.values()
        if ours and layer is not None and layer.visible and selection.active is not layer:
            selection.active = layer

    def blank_from(self, depth: int) -> None:
        """Scales not made yet must not show those of the picture before."""
        self._forget_deleted()
        self._blank([k for k in self._layers if k >= depth])

    def show_all(self, depth: int) -> None:
        """All scales made so far."""
        self._forget_deleted()
        for k, layer in self._layers.items():
            if layer.visible != (k < depth):
                layer.visible = k < depth

    def caption(self, on: bool) -> None:
        """Whether the name of every scale stands in the canvas, beside its image."""
        self._forget_deleted()
        for layer in self._layers.values():
            if layer.name_overlay.visible != on:
                layer.name_overlay.font_size = CAPTION
                layer.name_overlay.visible = on

    def values(self, k: int) -> FloatArray | None:
        """The picture of scale k as its layer shows it."""
        self._forget_deleted()
        if self._image_space is None or k not in self._layers:
            return None
        return np.asarray(self._image_space.placement.picture(np.asarray(self._layers[k].data)))

    def all(self) -> list[Image]:
        """Coarse to fine."""
        self._forget_deleted()
        return [self._layers[k] for k in sorted(self._layers)]

    def bring_to_front(self) -> None:
        """Above all other images, coarse to fine: a picture that is laid over one of them is to be seen."""
        layers = self._viewer.layers
        for layer in reversed(self.all()):
            layers.move(layers.index(layer), top_of_images(self._viewer))

    def clear(self) -> None:
        """No picture: what the layers held is undone."""
        self.blank_from(0)

    def forget(self, k: int) -> None:
        """What the layer of scale k holds is of another picture."""
        self._stale.add(k)

    def missing(self, depth: int) -> list[int]:
        """Scales below ``depth`` whose picture is to be had anew: the layer was deleted, or the picture not made."""
        self._forget_deleted()
        return [k for k in range(depth) if k not in self._layers or k in self._stale]

    # -- how ----------------------------------------------------------------------------------------------------

    def _make(self, k: int, name: str, values: FloatArray, image_space: ImageSpace, *, visible: bool) -> None:
        if old := self._layers.pop(k, None):  # grey and colour cannot share a layer
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
        self._group(k)
        if self._layers and values.ndim == 2:
            self._viewer.layers.link_layers([layer, next(iter(self._layers.values()))], _SHARED)
        self._layers[k] = layer
        if len(self._layers) == 1:
            self._fitting.fit([layer])

    def _bring_into_sight(self, k: int) -> None:
        """A new image is seen, though somebody has opened another above it, or beside it, since."""
        layers = self._viewer.layers
        if not self._viewer.canvas.grid.enabled:
            if layers.index(self._layers[k]) < top_of_images(self._viewer):
                self.bring_to_front()
            self._fitting.fit_unseen(self._layers[k])

    def _group(self, k: int) -> None:
        """All scales lie together in the list, coarse to fine, whatever was added or deleted meanwhile."""
        layers = self._viewer.layers
        if finer := [other for j, other in self._layers.items() if j > k]:
            place = min(map(layers.index, finer))
        elif self._layers:
            place = max(map(layers.index, self._layers.values())) + 1
        else:
            place = top_of_images(self._viewer)
        layers.move(len(layers) - 1, place)

    def _apply(self, image_space: ImageSpace) -> None:
        """Another condition may mean other units: then, and only then, windows set by hand are reset."""
        before, self._image_space = self._image_space, image_space
        for k in [k for k, layer in self._layers.items() if layer.ndim != image_space.placement.ndim]:
            self._viewer.layers.remove(self._layers.pop(k))
        if before is None or before.display != image_space.display:
            for layer in self._layers.values():
                if not layer.rgb:
                    layer.contrast_limits_range = (image_space.display.low, image_space.display.high)
                    layer.contrast_limits = (image_space.display.low, image_space.display.high)
        if before is None or not before.placement.same_as(image_space.placement):
            for layer in self._layers.values():
                side = max(layer.data.shape)
                picture = np.asarray(layer.data).reshape((side, side, 3) if layer.rgb else (side, side))
                layer.data = image_space.placement.array(picture)  # to be overwritten soon, but of the right shape now
                put(layer, world_in(self._viewer, image_space.placement, side))
            if self._layers and before is not None:
                self._fitting.fit(list(self._layers.values()))

    def _describe(self, preview: Preview, image_space: ImageSpace) -> None:
        """Every layer of the picture carries the newest trace."""
        made = about(preview, image_space)
        for k, layer in self._layers.items():
            if k < preview.generation.depth:
                layer.metadata[METADATA] = {**made, "scale": k}

    def _blank(self, scales: Sequence[int]) -> None:
        for k in scales:
            layer = self._layers[k]
            if layer.metadata.get(METADATA, {}).get("trace") is not None:
                low = 0 if layer.rgb or self._image_space is None else self._image_space.display.low
                layer.data = np.full_like(layer.data, low)
                self._draw_thumbnail(k)
                layer.metadata[METADATA] = {"trace": None, "scale": k, "synthetic": True}

    def _draw_thumbnail(self, k: int) -> None:
        """The list's little picture of a hidden layer, which napari leaves as it was when it was last seen."""
        layer = self._layers[k]
        if self._image_space is None or layer.rgb:
            return
        picture = self._image_space.placement.picture(np.asarray(layer.data))
        places = np.arange(_THUMBNAIL) * len(picture) // _THUMBNAIL
        low, high = layer.contrast_limits
        shares = np.clip((picture[np.ix_(places, places)] - low) / (high - low), 0, 1)
        layer.thumbnail = (layer.colormap.map(shares.ravel()).reshape(_THUMBNAIL, _THUMBNAIL, 4) * 255).astype(np.uint8)

    def _hide(self, k: int | None) -> None:
        if k in self._layers and self._layers[k].visible and not self._viewer.canvas.grid.enabled:
            self._layers[k].visible = False

    def _reveal(self, k: int) -> None:
        if not self._layers[k].visible:
            self._layers[k].visible = True
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


def shown_values(pixels: FloatArray, image_space: ImageSpace) -> FloatArray:
    """What a layer shows: values in their unit, or colours in [0, 1]."""
    return (np.clip(pixels, -1, 1) + 1) / np.float32(2) if pixels.ndim == 3 else image_space.display.values(pixels)


def _unwrapped(layer: Any) -> Any:
    """The layer itself: napari hands plugins proxies, a new one each time."""
    return getattr(layer, "__wrapped__", layer)
