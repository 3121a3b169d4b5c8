"""Planted copies, to test whether copies are found: training slices, changed as by a model or a user."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from medvar_engine.types import FloatArray

MAX_ZOOM = 4 / 3  # and its inverse
MAX_SHIFT = 0.06  # fraction of the side length
MAX_GAMMA = 2.0  # and its inverse
MAX_CENTRE = 0.2  # shift of the window centre, as a fraction of half the range of values
MAX_WIDTH = 0.3  # ± exponent: windows with 0.74…1.35 times the width
MAX_BLUR = 2 / 128  # standard deviation as a fraction of the side length: two pixels of 128
MAX_MASK = 0.5  # fraction of the image's area
NOISE = 0.04  # standard deviation, in [-1, 1]
MAX_WARP = 1.2 / 128  # standard deviation of the displacement of control points, as a fraction of the side length
_POINTS = 5  # control points of a warp per side

Change = Callable[[FloatArray, np.random.Generator], FloatArray]


def zoom(image: FloatArray, factor: float, shift: tuple[float, float] = (0, 0)) -> FloatArray:
    """Enlarge about the centre by ``factor`` and move by ``shift`` pixels; the margin is filled with air."""
    middle = (np.array(image.shape) - 1) / 2
    inverse = np.eye(2) / factor
    if factor < 1:
        image = ndimage.gaussian_filter(image, 0.5 * (1 / factor - 1))
    moved = ndimage.affine_transform(image, inverse, middle - inverse @ (middle + shift), order=1, cval=-1.0)
    return np.asarray(moved, dtype=np.float32)


def bend(image: FloatArray, gamma: float) -> FloatArray:
    """Apply ``gamma`` to the pixels, scaled to 0…1."""
    return np.asarray(2 * ((np.clip(image, -1, 1) + 1) / 2) ** gamma - 1, dtype=np.float32)


def blur(image: FloatArray, pixels: float) -> FloatArray:
    """Blur with a Gaussian of that standard deviation in pixels."""
    return np.asarray(ndimage.gaussian_filter(image, pixels), dtype=np.float32)


def cover(image: FloatArray, share: float, other: FloatArray | float, rng: np.random.Generator) -> FloatArray:
    """Replace ``share`` of the area, at a side or in a rectangle, by ``other``."""
    height, width = image.shape
    region = np.zeros(image.shape, dtype=bool)
    if rng.integers(3) == 0:
        at_a_side = np.zeros((max(image.shape),) * 2, dtype=bool)
        at_a_side[: round(share * len(at_a_side))] = True
        region = np.rot90(at_a_side, int(rng.integers(4)))[:height, :width]
    else:
        rows = min(height, max(1, round(height * np.sqrt(share * np.exp(rng.uniform(-0.7, 0.7))))))
        columns = min(width, round(share * height * width / rows))
        top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
        region[top : top + rows, left : left + columns] = True
    return np.asarray(np.where(region, other, image), dtype=np.float32)


def same(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The unchanged slice."""
    return image


def turned(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Rotate by multiples of 90°, mirror, or both."""
    form = int(rng.integers(1, 8))
    return np.rot90(image[:, ::-1] if form >= 4 else image, form % 4)


def inverted(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Invert black and white."""
    return -image


def zoomed(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Enlarge or reduce by up to `MAX_ZOOM`."""
    return zoom(image, _around(rng, MAX_ZOOM))


def shifted(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Shift by up to `MAX_SHIFT` in each direction, with subpixel precision; the margin is filled with air."""
    shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * image.shape
    return np.asarray(ndimage.shift(image, shift, order=1, cval=-1.0), dtype=np.float32)


def gamma(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Change the mid-tones by a gamma of 1/`MAX_GAMMA` to `MAX_GAMMA`."""
    return bend(image, _around(rng, MAX_GAMMA))


def rewindowed(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Change the centre and the width of the window; values outside are clipped."""
    centre, width = rng.uniform(-MAX_CENTRE, MAX_CENTRE), np.exp(rng.uniform(-MAX_WIDTH, MAX_WIDTH))
    return np.clip((image - np.float32(centre)) * np.float32(width), -1, 1)


def noisy(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Add white noise."""
    return np.clip(image + rng.normal(0, NOISE, image.shape).astype(np.float32), -1, 1)


def blurred(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Blur by a quarter of `MAX_BLUR` up to `MAX_BLUR`."""
    return blur(image, rng.uniform(MAX_BLUR / 4, MAX_BLUR) * len(image))


def masked(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Replace up to `MAX_MASK` of the image by black or by one grey level."""
    return cover(image, rng.uniform(0, MAX_MASK), rng.choice([-1.0, rng.uniform(-1, 1)]), rng)


def all_of_it(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """All changes together except the mask."""
    for change in (zoomed, shifted, gamma, rewindowed, blurred, noisy, turned):
        image = change(image, rng)
    return -image if rng.random() < 0.5 else image


COPIES: dict[str, Change] = {
    "same": same,
    "turned": turned,
    "inverted": inverted,
    "zoomed": zoomed,
    "shifted": shifted,
    "gamma": gamma,
    "rewindowed": rewindowed,
    "noisy": noisy,
    "blurred": blurred,
    "masked": masked,
    "all of it": all_of_it,
}
"""Kinds of planted copies by name."""


def plant(images: FloatArray, kind: str, seed: int) -> FloatArray:
    """Change images ``(N, H, W)`` by one kind of `COPIES`, each with its own random parameters."""
    change = COPIES[kind]
    changed = [change(image, np.random.default_rng((seed, number))) for number, image in enumerate(images)]
    return np.array(changed, dtype=np.float32).reshape(images.shape)


def disturb(image: FloatArray, rng: np.random.Generator, *, zoom_by: float, shift_by: float) -> FloatArray:
    """A random combination of slight changes: warp, window, blur and noise, like the copy of a generative model.

    The slice is zoomed by up to ``zoom_by`` (an exponent) and shifted by up to ``shift_by`` (a fraction of the side
    length).
    """
    side = len(image)
    down, right = rng.uniform(-shift_by, shift_by, 2) * side
    image = zoom(image, float(np.exp(rng.uniform(-zoom_by, zoom_by))), (down, right))
    if rng.random() < 0.5:
        image = _warped(image, rng)
    for change in (gamma, rewindowed, blurred, noisy):
        if rng.random() < 0.6:
            image = change(image, rng)
    return image


def _warped(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Warp by a smooth displacement field through a few control points."""
    height, width = image.shape
    points = rng.normal(0, MAX_WARP * height, (2, _POINTS, _POINTS))
    places = np.mgrid[:height, :width].astype(np.float64)
    grid = [places[0] * (_POINTS - 1) / max(1, height - 1), places[1] * (_POINTS - 1) / max(1, width - 1)]
    moves = [ndimage.map_coordinates(moved, grid, order=3, mode="nearest") for moved in points]
    moved = ndimage.map_coordinates(image, [places[0] + moves[0], places[1] + moves[1]], order=1, mode="nearest")
    return np.asarray(moved, dtype=np.float32)


def _around(rng: np.random.Generator, most: float) -> float:
    """A random factor from 1/``most`` to ``most``, log-uniform."""
    return float(np.exp(rng.uniform(-np.log(most), np.log(most))))
