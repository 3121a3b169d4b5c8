"""Burns the word SYNTHETIC into the emptiest part of the pixels, a mark that remains when a file loses its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.types import BoolArray, FloatArray
from medvar_engine.write.invisible import add_mark
from medvar_engine.write.marks import Marks
from medvar_engine.write.output_image import OutputImage

TEXT = "SYNTHETIC"
_MARGIN = 2  # dark pixels around the letters before enlargement
_PIXELS_PER_ZOOM = 128  # the letters, 7 pixels high, are enlarged by one for each of these pixels of the image's width
# Built-in letters of 5 by 7 pixels: a font may be rendered differently elsewhere, and `replay` compares every pixel.
_LETTERS = {
    "S": (".###.", "#...#", "#....", ".###.", "....#", "#...#", ".###."),
    "Y": ("#...#", "#...#", ".#.#.", "..#..", "..#..", "..#..", "..#.."),
    "N": ("#...#", "##..#", "##..#", "#.#.#", "#..##", "#..##", "#...#"),
    "T": ("#####", "..#..", "..#..", "..#..", "..#..", "..#..", "..#.."),
    "H": ("#...#", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "E": ("#####", "#....", "#....", "####.", "#....", "#....", "#####"),
    "I": (".###.", "..#..", "..#..", "..#..", "..#..", "..#..", ".###."),
    "C": (".###.", "#...#", "#....", "#....", "#....", "#...#", ".###."),
}


def burn_in(image: OutputImage) -> OutputImage:
    """The image with `TEXT`, white on a black box, at the upper or lower side, where it covers the least.

    Equal pixels are marked at the same place. Raises `MedvarError` when the image is too small for the letters.
    """
    if image.reconstruction:
        raise MedvarError(
            f"{TEXT} cannot be written into a reconstruction of a real image, because it shows a patient. Save it "
            "without this mark; the file itself is marked as a reconstruction."
        )
    height, width = image.pixels.shape
    mark = _mark(max(1, width // _PIXELS_PER_ZOOM))
    if mark.shape[0] * 2 > height or mark.shape[1] > width:
        raise MedvarError(
            f"{TEXT} needs {mark.shape[1]}×{mark.shape[0]} pixels and would cover an image of {width}×{height}. It can "
            "be burned into larger images only."
        )
    pixels = image.pixels.copy()
    rows, columns = min(_places(pixels, mark.shape), key=lambda place: float(pixels[place].sum(dtype=np.float64)))
    pixels[rows, columns] = np.where(mark, np.float32(1), np.float32(-1))
    return replace(image, pixels=pixels, marks=replace(image.marks, burned_in=True))


def marked(image: OutputImage, marks: Marks) -> OutputImage:
    """The image with ``marks`` in its pixels. Raises `MedvarError` when it is too small for them."""
    if marks.invisible:
        pixels = add_mark(image.pixels)
        image = replace(image, pixels=pixels, marks=replace(image.marks, invisible=True))
    return burn_in(image) if marks.burned_in else image


def _places(pixels: FloatArray, shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """The possible places: four corners and the middles between them. The first of equally dark ones is used."""
    (height, width), (rows, columns) = pixels.shape, shape
    for top in (height - rows, 0):
        for left in (0, width - columns, (width - columns) // 2):
            yield slice(top, top + rows), slice(left, left + columns)


def _mark(zoom: int) -> BoolArray:
    """The pixels at which the letters are white."""
    letters = [np.array([[dot == "#" for dot in row] + [False] for row in _LETTERS[letter]]) for letter in TEXT]
    text = np.pad(np.concatenate(letters, axis=1)[:, :-1], _MARGIN)
    return np.kron(text, np.ones((zoom, zoom), dtype=bool))
