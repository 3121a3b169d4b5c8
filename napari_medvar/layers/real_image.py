"""A layer that is open in the viewer as an image that the model can encode: the slice that is seen, as it is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvar_engine.data.harmonise.matrix import fit_to_matrix
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray
from medvar_engine.value_range import Display, ValueRange
from medvar_engine.write.place import Place
from napari_medvar.layers.image_layers import METADATA
from napari_medvar.layers.scan_metadata import ScanOf, scan_of
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.placement import Matrix, Placement, matrix_of

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

_LEAST = 8  # pixels a side of which a slice can be made anything


@dataclass(frozen=True, eq=False, slots=True)
class RealImage:
    """One slice, harmonised."""

    name: str  # of its layer
    pixels: FloatArray  # (H, W) in [-1, 1]: the layer's contrast limits are the ends
    image_space: ImageSpace  # it lies exactly over the slice


def real_image(viewer: napari.Viewer, layer: Layer | None, size: int, bundle: str) -> RealImage:
    """The slice of ``layer`` that is seen now, as ``size`` × ``size`` square pixels.

    Aspect, orientation on the screen, scale, affine, units and contrast limits are the layer's. Raises `MedvarError`
    in plain words when no such slice can be had.
    """
    layer = _checked(viewer, layer)
    to_world, (rows, columns) = matrix_of(layer), _seen_axes(viewer, layer)
    index = _place(viewer, layer, (rows, columns))
    values = _slice(layer, index, (rows, columns))
    flips = tuple(
        float(np.sign(_along(to_world, axis))) * (1 if word in ("down", "right") else -1)
        for axis, word in zip((rows, columns), map(_word, viewer.scene.camera.orientation2d), strict=True)
    )
    seen = values[:: int(flips[0]), :: int(flips[1])]
    low, high = map(float, layer.contrast_limits)
    spacing = tuple(float(np.linalg.norm(to_world[:-1, axis])) for axis in (rows, columns))
    image = ValueRange(low, high, "arbitrary").to_image(np.nan_to_num(seen, nan=low, posinf=high, neginf=low))
    fitted, pixel = fit_to_matrix(image, (spacing[0], spacing[1]), size)

    into = np.eye(layer.ndim + 1)  # from the picture's indices to the layer's
    into[:-1, -1] = index
    for axis, length, step, flip in zip((rows, columns), values.shape, spacing, flips, strict=True):
        into[axis, axis] = flip * pixel / step
        into[axis, -1] = (length - 1) / 2 - flip * pixel / step * (size - 1) / 2
    units = tuple(map(str, layer.units))
    placement = Placement(size, to_world @ into, units, (rows, columns))
    lengths = {"millimeter", "mm"} >= {units[rows], units[columns]}
    scan = scan_of(layer)
    display = Display(low, high, scan.unit if scan else "arbitrary", pixel if lengths or scan else None)
    place = _in_patient(scan, into, (rows, columns)) if scan else None
    return RealImage(layer.name, fitted, ImageSpace(display, placement, bundle, place))


def _in_patient(scan: ScanOf, into: Matrix, axes: tuple[int, int]) -> Place:
    """Where the picture lies; ``into`` leads from its indices, as an array of three axes, to the layer's."""
    rows, columns = axes
    (through,) = {0, 1, 2} - {rows, columns}
    return Place((scan.to_lps @ into)[:, [columns, rows, through, 3]], scan.frame_of_reference)


def _checked(viewer: napari.Viewer, layer: Layer | None) -> Layer:
    from napari.layers import Image

    if layer is None:
        raise MedvarError("Select one image layer in the layer list first.")
    if not isinstance(layer, Image):
        raise MedvarError(f"“{layer.name}” is no image layer: select the layer of a CT or MR image.")
    if METADATA in layer.metadata:
        raise MedvarError(f"“{layer.name}” was made by MedVAR already: select the layer of a real image.")
    if layer.rgb:
        raise MedvarError(f"“{layer.name}” is in colour; the model knows gray slices only.")
    if viewer.dims.ndisplay != 2:
        raise MedvarError(
            "The viewer shows a volume in 3-D: switch to 2-D (the cube button), and to the slice you want."
        )
    return layer


def _seen_axes(viewer: napari.Viewer, layer: Layer) -> tuple[int, int]:
    """The layer's axes that run down and across the screen."""
    ahead = viewer.dims.ndim - layer.ndim  # the layer's axes are the viewer's last
    rows, columns = (axis - ahead for axis in viewer.dims.displayed)
    if min(rows, columns) < 0:
        raise MedvarError(f"“{layer.name}” lacks an axis that is shown: roll the viewer's axes until it is seen.")
    return rows, columns


def _place(viewer: napari.Viewer, layer: Layer, seen: tuple[int, int]) -> np.ndarray:
    """Index of the slice on every axis; 0 on those that are seen."""
    index = np.rint(np.asarray(layer.world_to_data(viewer.dims.point[-layer.ndim :]), dtype=float))
    index[list(seen)] = 0
    shape = np.array((layer.data[0] if layer.multiscale else layer.data).shape)
    if (index < 0).any() or (index >= shape).any():
        raise MedvarError(f"“{layer.name}” has no slice where the viewer stands: move the slider to a slice of it.")
    return index


def _slice(layer: Any, index: np.ndarray, seen: tuple[int, int]) -> FloatArray:
    """Only the slice is read, whatever the layer's size."""
    data = layer.data[0] if layer.multiscale else layer.data
    values = np.asarray(data[tuple(slice(None) if axis in seen else int(i) for axis, i in enumerate(index))])
    if seen[0] > seen[1]:
        values = values.T
    if min(values.shape) < _LEAST:
        raise MedvarError(f"The slice has {values.shape[0]}×{values.shape[1]} pixels: too few to make an image of.")
    if np.iscomplexobj(values):
        raise MedvarError(f"“{layer.name}” holds complex numbers: show its magnitude first.")
    return np.asarray(values, dtype=np.float32)


def _along(to_world: Matrix, axis: int) -> float:
    """How far one step along an axis goes in the direction that it mostly runs in; never 0."""
    column = to_world[:-1, axis]
    return float(column[np.argmax(np.abs(column))]) or 1.0


def _word(direction: object) -> str:
    return str(getattr(direction, "value", direction))
