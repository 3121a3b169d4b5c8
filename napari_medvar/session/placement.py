"""`Placement`: the position of a square image in the world, and the matching attributes of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari.layers import Layer

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Placement:
    """An image of ``size`` pixels per side as an array of ``ndim`` axes, all but two of which have length 1.

    ``matrix`` is homogeneous, ``(ndim + 1, ndim + 1)``, and maps indices of that array to the world. Pixel centres are
    at integer indices, as in napari.
    """

    size: int
    matrix: Matrix
    units: tuple[str, ...]
    axes: tuple[int, int]  # the axes of rows and columns

    @classmethod
    def flat(cls, size: int, spacing_mm: float | None) -> Placement:
        """The placement of an image that belongs to no other: its first pixel is at the origin."""
        spacing, unit = (spacing_mm, "mm") if spacing_mm else (1.0, "pixel")
        return cls(size, np.diag([spacing, spacing, 1.0]), (unit, unit), (0, 1))

    @property
    def ndim(self) -> int:
        """The number of axes of the array."""
        return len(self.matrix) - 1

    def array(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An image ``(side, side)`` or ``(side, side, 3)`` as the array of a layer, with ``ndim`` spatial axes."""
        rows, columns = self.axes
        turned = image if rows < columns else image.swapaxes(0, 1)
        return np.expand_dims(turned, tuple(axis for axis in range(self.ndim) if axis not in self.axes))

    def image(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The inverse of `array`."""
        flat = np.squeeze(array, axis=tuple(axis for axis in range(self.ndim) if axis not in self.axes))
        return flat if self.axes[0] < self.axes[1] else flat.swapaxes(0, 1)

    def world(self, side: int) -> dict[str, Any]:
        """The attributes of a layer with ``side`` tokens or pixels per side that covers the image exactly."""
        step = self.size / side
        fit = np.eye(self.ndim + 1)
        for axis in self.axes:
            fit[axis, axis], fit[axis, -1] = step, (step - 1) / 2
        matrix = self.matrix @ fit
        scale = np.linalg.norm(matrix[:-1, :-1], axis=0)
        rest = matrix @ np.diag([*(1 / scale), 1.0])
        upright = np.allclose(rest[:-1, :-1], np.eye(self.ndim))
        translate = rest[:-1, -1] if upright else np.zeros(self.ndim)
        affine = np.eye(self.ndim + 1) if upright else rest
        return {"scale": scale, "translate": translate, "affine": affine, "units": self.units}

    def points(self) -> npt.NDArray[np.float64]:
        """The pixel centres in world coordinates: ``(size, size, ndim)``."""
        index = np.zeros((self.size, self.size, self.ndim + 1))
        index[..., -1] = 1
        index[..., self.axes[0]], index[..., self.axes[1]] = np.indices((self.size, self.size))
        places: npt.NDArray[np.float64] = (index @ self.matrix.T)[..., :-1]
        return places

    def pixel(self, world: Sequence[float]) -> tuple[float, float]:
        """Row and column of a point in the world. The image's axes are the last ones of ``world``."""
        place = np.append(np.asarray(world, dtype=float)[-self.ndim :], 1.0)
        index = np.linalg.solve(self.matrix, place)
        return float(index[self.axes[0]]), float(index[self.axes[1]])

    def same_as(self, other: Placement) -> bool:
        """Whether both placements are the same."""
        return (self.size, self.units, self.axes) == (other.size, other.units, other.axes) and np.array_equal(
            self.matrix, other.matrix
        )


def matrix_of(layer: Layer) -> Matrix:
    """The homogeneous matrix from a layer's indices to the world: translation, rotation, shear and affine combined."""
    return _matrix(layer.data_to_world, layer.ndim)


def _matrix(transform: Callable[[Sequence[float]], Sequence[float]], ndim: int) -> Matrix:
    origin = np.asarray(transform([0.0] * ndim), dtype=float)
    result = np.eye(ndim + 1)
    result[:-1, -1] = origin
    for axis in range(ndim):
        unit = [0.0] * ndim
        unit[axis] = 1.0
        result[:-1, axis] = np.asarray(transform(unit), dtype=float) - origin
    return result
