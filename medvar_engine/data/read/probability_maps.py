"""Recognises probability maps and soft masks by their values, which lie between 0 and 1."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

REMARK = "its values lie between 0 and 1; it is taken for a scan that was normalised, but may be a probability map"

_EXAMINED = 2_000_000  # number of voxels, in lines along each axis
_NOTHING = 1e-4  # below it nothing is shown: probabilities of a network are never exactly 0
_ROUNDED = 1e-5  # values may exceed 1 by as much
_EMPTY = 0.2  # least share of voxels in which a map shows nothing
_BINS = 20
_FAINT = 1 / _BINS


def lies_between_0_and_1(array: NDArray[Any]) -> bool:
    """Whether all values are such as a normalised scan, or a probability map, has."""
    return 0 < float(array.max()) <= 1 + _ROUNDED and float(array.min()) >= 0


def looks_like_probabilities(array: NDArray[Any]) -> bool:
    """Whether values between 0 and 1 are surely those of a probability map or a soft mask, not of a normalised scan.

    Much of a map is empty. In the rest either most is nearly certain, so that values near 0 and near 1 are far more
    frequent than any between, or it fades into the empty part. In both cases it is smooth. A scan has its tissues
    between, ends abruptly where it was masked, and has noise. The limits were chosen with scans that were normalised,
    clipped, masked, enlarged or blurred. A map without these traits cannot be distinguished from a normalised scan.
    """
    if array.ndim != 3 or array.size == 0:
        return False
    lines = [_lines(array, axis) for axis in range(3)]
    shown = lines[0][lines[0] > _NOTHING]
    if not 0 < shown.size <= (1 - _EMPTY) * lines[0].size:
        return False
    shares = np.histogram(shown, _BINS, (0, 1 + _ROUNDED))[0] / shown.size
    near_0, between, near_1 = shares[0], shares[2:-2].max(), shares[-1]
    roughness = _roughness(lines)
    is_certain = near_1 > 0.05 and min(near_0, near_1) > 2 * between and roughness < 1.4
    is_fading = near_0 > 4 * between and roughness < 0.9 and _faint_border(lines) > 0.95
    return bool(is_certain or is_fading)


def _lines(array: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """Evenly spaced lines of voxels along an axis (N, lines)."""
    step = math.ceil(math.sqrt(array.size / _EXAMINED))
    lines = np.moveaxis(array, axis, 0)[:, ::step, ::step]
    return lines.reshape(array.shape[axis], -1).astype(np.float64)


def _roughness(lines: list[NDArray[np.float64]]) -> float:
    """Second differences relative to first differences, of voxels that show something: 1.7 for noise, 0 for a slope."""
    slope = bend = 0.0
    for one in lines:
        shown = one > _NOTHING
        inside = shown[:-2] & shown[1:-1] & shown[2:]
        slope += float(np.abs(one[2:] - one[:-2])[inside].sum()) / 2
        bend += float(np.abs(one[2:] - 2 * one[1:-1] + one[:-2])[inside].sum())
    return bend / slope if slope else math.inf


def _faint_border(lines: list[NDArray[np.float64]]) -> float:
    """The share of faint voxels among those beside an empty one."""
    border = [np.maximum(one[:-1], one[1:])[(one[:-1] > _NOTHING) != (one[1:] > _NOTHING)] for one in lines]
    values = np.concatenate(border)
    return float((values < _FAINT).mean()) if values.size else 0.0
