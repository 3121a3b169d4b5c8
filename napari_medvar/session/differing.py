"""Close-ups of images that differ in one place only, such as images with alternative tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medvar_engine.types import FloatArray

_VISIBLE = 0.04  # least visible difference, as a fraction of the range [-1, 1]
_LEAST = 0.25  # least fraction of a side to show: a smaller part cannot be recognised
_AROUND = 1.5  # size of the window relative to the part that differs
_LEAST_CONTRAST = 0.1  # least half-width of the contrast range
_ORANGE = np.array([1.0, 0.25, -0.6], dtype=np.float32)

Window = tuple[slice, slice]


def differing_window(images: FloatArray) -> Window:
    """Rows and columns of a square in which images differ from the first one, with some margin.

    ``images`` are ``(N, H, W)`` or ``(N, H, W, 3)``.
    """
    size = images.shape[1]
    differs = (np.abs(images[1:] - images[:1]) > _VISIBLE).reshape(len(images) - 1, size, size, -1).any(axis=(0, 3))
    if not differs.any():
        return slice(0, size), slice(0, size)
    bounds = [np.flatnonzero(differs.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    longest = max(int(last - first) + 1 for first, last in bounds)
    side = min(size, max(round(longest * _AROUND), round(size * _LEAST)))
    starts = [int(np.clip((first + last + 1 - side) // 2, 0, size - side)) for first, last in bounds]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def framed(image: FloatArray, window: Window) -> FloatArray:
    """The image as RGB ``(H, W, 3)``, with an orange frame around ``window``."""
    result = np.array(image if image.ndim == 3 else np.repeat(image[..., np.newaxis], 3, axis=-1), dtype=np.float32)
    rows, columns = window
    if rows.stop - rows.start == len(image):
        return result
    for row in (rows.start, rows.stop - 1):
        result[row, columns] = _ORANGE
    for column in (columns.start, columns.stop - 1):
        result[rows, column] = _ORANGE
    return result


def place_of_token(row: int, column: int, side: int, size: int) -> Window:
    """The pixels of one token: ``size`` is the number of pixels per side of the image, ``side`` that of tokens."""
    edges: npt.NDArray[np.int64] = np.rint(np.arange(side + 1) * size / side).astype(np.int64)
    return slice(int(edges[row]), int(edges[row + 1])), slice(int(edges[column]), int(edges[column + 1]))


def shift(window: Window, by: Window) -> Window:
    """``window`` relative to the corner of ``by``; parts outside ``by`` are cut off."""
    return tuple(  # type: ignore[return-value]  # a tuple of two
        slice(max(0, part.start - other.start), min(part.stop, other.stop) - other.start)
        for part, other in zip(window, by, strict=True)
    )


def closeups(images: FloatArray, token: Window) -> tuple[Sequence[FloatArray], Sequence[FloatArray]]:
    """Close-ups of images with alternative tokens, the token framed; and the whole images, the close-up framed.

    The contrast of a close-up is that of the token's place, because similar tokens differ little.
    """
    window, (low, high) = differing_window(images), _contrast(images[:, *token])
    near = [
        framed(np.clip((image[window] - low) / (high - low) * 2 - 1, -1, 1), shift(token, window)) for image in images
    ]
    return near, [framed(image, window) for image in images]


def _contrast(values: FloatArray) -> tuple[float, float]:
    """The darkest and the brightest value, widened if they are so close that noise would become visible."""
    middle, half = (float(values.max()) + float(values.min())) / 2, float(np.ptp(values)) / 2
    half = max(half, _LEAST_CONTRAST)
    return middle - half, middle + half
