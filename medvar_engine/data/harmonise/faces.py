"""Finds the face in a scan of a head, to warn that a patient could be recognised. It does not remove faces."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from medvar_engine.data.read.volume import Volume
from medvar_engine.types import BoolArray, FloatArray

Spacing = tuple[float, ...]

# All measurements use voxels of about this size in mm; a scan with coarser voxels shows no recognisable face.
_COARSE = 4.0
_COARSEST = 12.0

# Heads of children and adults: area of the largest axial section in cm², its sides in mm.
_AREA = (90.0, 330.0)
_WIDTH = (90.0, 215.0)
_LENGTH = (110.0, 245.0)

# Depths below the vertex as fractions of the head's length, measured on full-head MR.
_FOREHEAD = (0.25, 0.48)
_FACE = (0.52, 0.85)  # from the eyebrows to the upper lip
_CHIN = 1.3
_LEAST = 0.65  # a scan that ends above this depth shows at most the eyebrows

# In the same unit: how far the skin may lie behind the forehead, how far behind the forehead the face ends, and the
# slope of the frontal skull base.
_RECESS = 0.12
_THICKNESS = 0.3
_SLOPE = 0.35


def face_region(volume: Volume) -> BoolArray | None:
    """The voxels (X, Y, Z) in front of and below the frontal skull base, if the head shows a face; None otherwise.

    The region is bounded by planes and includes the air in front of the face, so that no outline of the face remains
    when it is filled with one value.

    A geometric rule of thumb, meant as a warning. The head is the largest part above Otsu's threshold; it must end in a
    dome and have a head's size. It shows a face when it reaches down to the eyes and when, from the eyebrows to the
    lip, its midline does not fall back behind the forehead by more than an eighth of the head's length: that is where
    skull-stripped and defaced heads end. Eyes and nose without a chin are a face.

    Limits: faces can be missed in heads rotated by more than about 20° against the scan's axes, infants below about one
    year, heads without more than a few centimetres of the vertex, and behind artefacts; a blurred or replaced face
    still counts as a face. The result None does not prove that a patient cannot be recognised, and removing the region
    does not make a scan anonymous.

    Source: the plane of Schimke and Hale, "Quickshear defacing for neuroimages" (HealthSec 2011), placed by proportions
    of the head instead of a brain mask; Otsu, IEEE Trans. SMC 9 (1979) 62.
    """
    if not volume.oriented or not all(0 < side <= _COARSEST for side in volume.spacing):
        return None
    steps = [max(1, round(_COARSE / side)) for side in volume.spacing]
    spacing = tuple(side * step for side, step in zip(volume.spacing, steps, strict=True))
    tissue = _largest_part(_block_means(volume.array, steps))
    head = None if tissue is None else _measure(tissue, spacing)
    if tissue is None or head is None or not _shows_face(tissue, head, spacing):
        return None
    return _in_front_of_skull_base(volume, head)


@dataclass(frozen=True, slots=True)
class _Head:
    """The position of a head in mm from the volume's corner: vertex (z), midline (x), skin of the forehead (y)."""

    vertex: float
    middle: float
    forehead: float
    length: float


def _block_means(array: FloatArray, steps: list[int]) -> FloatArray:
    """Means over blocks of ``steps`` voxels; blocks at the end of an axis may be smaller."""
    means = array
    for axis, step in reversed(tuple(enumerate(steps))):  # voxels are contiguous along x
        lines = np.moveaxis(means, axis, 0)
        means = np.stack([lines[at : at + step].mean(axis=0) for at in range(0, len(lines), step)], axis=axis)
    return means


def _largest_part(array: FloatArray) -> BoolArray | None:
    """The largest connected part of the tissue, its axial sections filled."""
    low, high = np.percentile(array, (1, 99))
    if not low < high:
        return None
    # Muscle and brain are below Otsu's threshold if fat is very bright; air is far below it.
    threshold = low + 0.6 * (_otsu(np.clip(array, low, high)) - low)
    labels, count = ndimage.label(ndimage.binary_opening(array > threshold))
    if count == 0:
        return None
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[:, :, (0, 2)] = False
    return np.asarray(ndimage.binary_fill_holes(largest, in_plane))


def _otsu(values: FloatArray) -> float:
    """Otsu's threshold: it separates the values into the two classes with the largest variance between them."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    apart = sums[:-1] / below - (sums[-1] - sums[:-1]) / above  # the first and last bin are never empty
    return float(centres[int(np.argmax(below * above * apart**2))])


def _measure(tissue: BoolArray, spacing: Spacing) -> _Head | None:
    """The head at the upper end of ``tissue``; None if it does not have the shape of a head."""
    areas = tissue.sum(axis=(0, 1)) * spacing[0] * spacing[1] / 100
    top = int(np.flatnonzero(areas)[-1])
    upper = slice(max(0, top - int(120 / spacing[2])), top + 1)
    largest = areas[upper].max()
    fullest = tissue[:, :, upper][:, :, areas[upper] >= 0.8 * largest]
    left, right = _borders(np.any(fullest, axis=(1, 2)), spacing[0])
    back, front = _borders(np.any(fullest, axis=(0, 2)), spacing[1])
    width, length = right - left, front - back
    is_dome = areas[max(0, top - int(10 / spacing[2])) : top + 1].mean() <= 0.5 * largest
    sizes = ((largest, _AREA), (width, _WIDTH), (length, _LENGTH))
    if not is_dome or length < 0.95 * width or not all(low <= size <= high for size, (low, high) in sizes):
        return None
    # The part of the vertex that the field of view cuts off is estimated from the area at the cut of an ellipsoid.
    is_cut = top == len(areas) - 1
    hidden = 0.45 * length * (1 - math.sqrt(1 - areas[top] / largest)) if is_cut else 0.0
    head = _Head((top + 1) * spacing[2] + hidden, left + width / 2, 0.0, length)
    brow = _profile(tissue, head, _FOREHEAD, spacing)
    return replace(head, forehead=float(brow.max())) if brow.size else None


def _borders(line: BoolArray, step: float) -> tuple[float, float]:
    """The first and the last true value of a line, in mm."""
    places = np.flatnonzero(line)
    return float(places[0] * step), float((places[-1] + 1) * step)


def _depths(head: _Head, count: int, step: float) -> NDArray[np.float64]:
    """The depth of each axial section below the vertex, as a fraction of the head's length."""
    return np.asarray((head.vertex - (np.arange(count) + 0.5) * step) / head.length, dtype=np.float64)


def _profile(tissue: BoolArray, head: _Head, between: tuple[float, float], spacing: Spacing) -> NDArray[np.float64]:
    """The most anterior position in mm of tissue within 15 mm of the midline, for each section; 0 without tissue."""
    depths = _depths(head, tissue.shape[2], spacing[2])
    sections = tissue[:, :, (depths >= between[0]) & (depths <= between[1])]
    first, last = (int((head.middle + side) / spacing[0]) for side in (-15, 15))
    line = np.any(sections[max(first, 0) : last + 1], axis=0)
    fronts = line.shape[0] - np.argmax(line[::-1], axis=0)
    return np.asarray(np.where(np.any(line, axis=0), fronts * spacing[1], 0.0), dtype=np.float64)


def _shows_face(tissue: BoolArray, head: _Head, spacing: Spacing) -> bool:
    """Whether eyes and nose are visible: the midline profile does not recede below the forehead."""
    if _depths(head, 1, spacing[2])[0] < _LEAST:
        return False
    profile = _profile(tissue, head, _FACE, spacing)
    return bool((profile >= head.forehead - _RECESS * head.length).all())


def _in_front_of_skull_base(volume: Volume, head: _Head) -> BoolArray:
    """The voxels before a coronal plane behind the eyes, and below a plane that falls from the eyebrows backwards."""
    _, rows, sections = volume.array.shape
    depth = _depths(head, sections, volume.spacing[2])
    behind = ((head.forehead - (np.arange(rows) + 0.5) * volume.spacing[1]) / head.length)[:, np.newaxis]
    side = (behind <= _THICKNESS) & (depth >= _FACE[0] + _SLOPE * np.maximum(behind, 0)) & (depth <= _CHIN)
    return np.broadcast_to(side, volume.array.shape).copy()
