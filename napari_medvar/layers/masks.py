"""Masks from Labels or Shapes layers of any size and position: the part of an image that may change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MOST, MaskArray
from medvar_engine.types import BoolArray, IntArray
from napari_medvar.layers.image_layers import METADATA, world_in
from napari_medvar.session.placement import Placement, matrix_of

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

_OPACITY, _FADED = 0.45, 0.12
_BRUSH = 10  # the radius of the brush is the image's size divided by this


def mask_layers(viewer: napari.Viewer) -> list[Layer]:
    """The layers that can be used as a mask."""
    from napari.layers import Labels, Shapes

    return [
        layer
        for layer in viewer.layers
        if isinstance(layer, Labels | Shapes) and "map" not in layer.metadata.get(METADATA, {})
    ]


def mask_of(layer: Layer, placement: Placement, point: Sequence[float] = ()) -> BoolArray:
    """The pixels ``(H, W)`` of an image that are painted in ``layer``.

    ``point`` is the viewer's current position, for a layer with more axes than the image. Raises `MedvarError` when
    nothing is painted over the image.
    """
    from napari.layers import Shapes

    shapes = isinstance(layer, Shapes)
    mask = _of_shapes(layer, placement) if shapes else _of_labels(layer, placement, point) != 0
    if not mask.any():
        raise MedvarError(
            f"Nothing of the image is painted in the layer “{layer.name}”. Paint where the image may change, then "
            "try again."
        )
    return mask


def structures_of(layer: Layer | None, placement: Placement, point: Sequence[float] = ()) -> MaskArray:
    """The numbers ``(H, W)`` that a Labels layer has at the pixels of an image.

    A layer of the image's size without a scale, such as an opened PNG, is taken pixel by pixel: by its place in the
    world it would cover only a corner of an image whose pixels have a size in mm.

    Raises `MedvarError` for another layer, for numbers above 255, and when nothing lies on the image.
    """
    from napari.layers import Labels

    if not isinstance(layer, Labels):
        raise MedvarError("Select a Labels layer in the layer list: its numbers are the structures to draw to.")
    unplaced = layer.data.shape == (placement.size,) * 2 and np.array_equal(matrix_of(layer), np.eye(3))
    values = np.asarray(layer.data) if unplaced else _of_labels(layer, placement, point)
    if values.max(initial=0) > MOST or values.min(initial=0) < 0:
        raise MedvarError(f"The layer “{layer.name}” has labels beyond 0 to {MOST}, which stand for no structure.")
    if not values.any():
        raise MedvarError(
            f"Nothing of the image is painted in the layer “{layer.name}”. Paint a structure, then try again."
        )
    return values.astype(np.uint8)


def add_mask(viewer: napari.Viewer, placement: Placement) -> Layer:
    """Add an empty Labels layer on the image's pixel grid, and select the brush."""
    size = placement.size
    layer = viewer.add_labels(
        placement.array(np.zeros((size, size), dtype=np.uint8)),
        name="mask",
        opacity=_OPACITY,
        metadata={METADATA: {"mask": True}},
        **world_in(viewer, placement, size),
    )
    layer.brush_size = max(1, size // _BRUSH)
    layer.selected_label = 1
    take_brush(viewer, layer)
    return layer


def own_mask(layer: Layer | None) -> bool:
    """Whether `add_mask` made this layer, so that it is not a segmentation of the user's."""
    return layer is not None and "mask" in layer.metadata.get(METADATA, {})


def fits(layer: Layer, placement: Placement) -> bool:
    """Whether a mask made by `add_mask` lies on the image's pixel grid."""
    grid = placement.array(np.empty((placement.size, placement.size), dtype=np.uint8)).shape
    return tuple(layer.data.shape) == grid and np.allclose(matrix_of(layer), placement.matrix)


def take_brush(viewer: napari.Viewer, layer: Layer) -> None:
    """Select a mask and its brush, to continue painting."""
    layer.visible, layer.opacity = True, _OPACITY
    viewer.layers.selection.active = layer
    layer.mode = "paint"


def fade(layer: Layer) -> None:
    """Make a mask translucent, so that the change below it is visible."""
    layer.opacity = min(layer.opacity, _FADED)


def clear(layer: Layer) -> None:
    """Erase a mask. Undo of the layer restores it."""
    _set(layer, np.nonzero(np.asarray(layer.data)), 0)


def invert(layer: Layer) -> None:
    """Swap painted and unpainted areas."""
    painted, empty = np.nonzero(np.asarray(layer.data)), np.nonzero(np.asarray(layer.data) == 0)
    _set(layer, painted, 0)
    _set(layer, empty, 1)


def _set(layer: Layer, places: tuple[np.ndarray, ...], value: int) -> None:
    if len(places[0]):
        layer.data_setitem(places, value)


def _of_labels(layer: Layer, placement: Placement, point: Sequence[float]) -> IntArray:
    """The layer's numbers ``(H, W)`` at the pixels of an image; 0 where it does not reach."""
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    index = _indices(placement.points(), layer, point)
    whole = np.rint(index).astype(int)
    inside = ((whole >= 0) & (whole < np.array(data.shape))).all(axis=-1)
    values = np.zeros(inside.shape, dtype=np.int64)
    values[inside] = np.asarray(data)[tuple(whole[inside].T)]
    return values


def _of_shapes(layer: Layer, placement: Placement) -> BoolArray:
    """Draw shapes on the image's pixel grid, so that the layer's pixel size does not matter."""
    from napari.layers import Shapes

    to_world, ndim = matrix_of(layer), min(layer.ndim, placement.ndim)
    mask = np.zeros((placement.size, placement.size), dtype=np.bool_)
    for vertices, kind in zip(layer.data, layer.shape_type, strict=True):
        places = (np.column_stack([vertices, np.ones(len(vertices))]) @ to_world.T)[:, :-1]
        pixels = np.array(
            [placement.pixel(np.r_[placement.matrix[:-1, -1][:-ndim], place[-ndim:]]) for place in places]
        )
        drawn = Shapes([pixels], shape_type=[kind])
        mask |= drawn.to_labels(labels_shape=mask.shape) != 0
    return mask


def _indices(places: np.ndarray, layer: Layer, point: Sequence[float]) -> np.ndarray:
    """Points in the world ``(…, n)`` as indices of a layer with any number of axes."""
    ndim = layer.ndim
    if places.shape[-1] < ndim:
        before = np.broadcast_to(
            np.asarray(point, float)[-ndim:][: ndim - places.shape[-1]], (*places.shape[:-1], ndim - places.shape[-1])
        )
        places = np.concatenate([before, places], axis=-1)
    places = places[..., -ndim:]
    homogeneous = np.concatenate([places, np.ones((*places.shape[:-1], 1))], axis=-1)
    return (homogeneous @ np.linalg.inv(matrix_of(layer)).T)[..., :-1]
