"""`real_image`: the visible slice of a layer, as an image that the model can encode."""

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

_LEAST = 8  # least pixels per side of a slice


@dataclass(frozen=True, eq=False, slots=True)
class RealImage:
    """One harmonised slice."""

    name: str  # of the layer
    pixels: FloatArray  # (H, W); the layer's contrast limits become -1 and 1
    image_space: ImageSpace  # the image lies exactly over the slice


def real_image(viewer: napari.Viewer, layer: Layer | None, size: int, bundle: str) -> RealImage:
    """The visible slice of ``layer``, resampled to ``size`` × ``size`` square pixels.

    Aspect ratio, orientation on the screen, scale, affine, units and contrast limits are those of the layer. Raises
    `MedvarError` when the layer has no suitable slice, and says why.
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

    into = np.eye(layer.ndim + 1)  # from indices of the image to indices of the layer
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
    """The position in the patient; ``into`` maps the image's indices, as an array of three axes, to the layer's."""
    rows, columns = axes
    (through,) = {0, 1, 2} - {rows, columns}
    return Place((scan.to_lps @ into)[:, [columns, rows, through, 3]], scan.frame_of_reference)


def _checked(viewer: napari.Viewer, layer: Layer | None) -> Layer:
    from napari.layers import Image

    if layer is None:
        raise MedvarError("Select one image layer in the layer list first.")
    if not isinstance(layer, Image):
        raise MedvarError(f"“{layer.name}” is not an image layer. Select the layer of a CT or MR image.")
    if METADATA in layer.metadata:
        raise MedvarError(f"“{layer.name}” was made by MedVAR. Select the layer of a real image.")
    if layer.rgb:
        raise MedvarError(f"“{layer.name}” is a colour image. The model can encode greyscale images only.")
    if viewer.dims.ndisplay != 2:
        raise MedvarError("The viewer is in 3D mode. Switch to 2D (cube button), and go to the slice that you want.")
    return layer


def _seen_axes(viewer: napari.Viewer, layer: Layer) -> tuple[int, int]:
    """The layer's axes that are vertical and horizontal on the screen."""
    ahead = viewer.dims.ndim - layer.ndim  # the layer's axes are the last ones of the viewer
    rows, columns = (axis - ahead for axis in viewer.dims.displayed)
    if min(rows, columns) < 0:
        raise MedvarError(
            f"“{layer.name}” lacks one of the axes on the screen. Roll the viewer's axes until the image is visible."
        )
    return rows, columns


def _place(viewer: napari.Viewer, layer: Layer, seen: tuple[int, int]) -> np.ndarray:
    """The index of the slice on every axis; 0 on the two axes of the screen."""
    index = np.rint(np.asarray(layer.world_to_data(viewer.dims.point[-layer.ndim :]), dtype=float))
    index[list(seen)] = 0
    shape = np.array((layer.data[0] if layer.multiscale else layer.data).shape)
    if (index < 0).any() or (index >= shape).any():
        raise MedvarError(
            f"“{layer.name}” has no slice at the viewer's position. Move the slider to one of its slices."
        )
    return index


def _slice(layer: Any, index: np.ndarray, seen: tuple[int, int]) -> FloatArray:
    """The values of the slice. Only the slice is read, whatever the size of the layer."""
    data = layer.data[0] if layer.multiscale else layer.data
    values = np.asarray(data[tuple(slice(None) if axis in seen else int(i) for axis, i in enumerate(index))])
    if seen[0] > seen[1]:
        values = values.T
    if min(values.shape) < _LEAST:
        raise MedvarError(f"The slice has {values.shape[0]}×{values.shape[1]} pixels, which is too small to encode.")
    if np.iscomplexobj(values):
        raise MedvarError(f"“{layer.name}” holds complex numbers. Compute its magnitude first, and select that layer.")
    return np.asarray(values, dtype=np.float32)


def _along(to_world: Matrix, axis: int) -> float:
    """The step of one index along an axis, in the world direction closest to the axis; never 0."""
    column = to_world[:-1, axis]
    return float(column[np.argmax(np.abs(column))]) or 1.0


def _word(direction: object) -> str:
    return str(getattr(direction, "value", direction))
