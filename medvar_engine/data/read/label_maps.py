"""Recognises label maps, masks and statistics among volume files by their names and values."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAME = re.compile(
    r"(^|[._-])(d?seg|probseg|labels?|labelmap|masks?|segmentations?|parcellations?|lesion_mask|gt"
    r"|[ztf]stats?\d*|[ztf]map\d*|pvals?\d*)$",
    re.IGNORECASE,
)
_FEW_VALUES = 16  # a scan has more different values; a mask has two
_SAMPLE = 20_000  # number of voxels for the count of values
_COMPARED = 200_000  # number of voxels that are compared with their neighbours along each axis
_PIECE = 2**20  # number of voxels that are examined together
_ENOUGH = 1000  # least number of neighbours for a decision


def names_labels(stem: str) -> bool:
    """Whether a file name ends like those of label maps and statistics: ``…_labels``, ``…_seg``, ``…-mask``."""
    return _NAME.search(stem) is not None


def looks_like_labels(array: NDArray[Any]) -> bool:
    """Whether the values are those of a label map or mask, whatever the number and the thickness of labels.

    An array with few different whole numbers is not a scan. An array with many is a label map if most neighbours are
    equal and different neighbours differ by any amount: in a scan, even a smooth 8-bit scan, they differ by little.
    Slices that repeat the one before, as in a scan enlarged by nearest neighbour, are examined once.
    """
    if array.size == 0:
        return False
    few = array.ravel(order="K")[:: max(1, array.size // _SAMPLE)]  # in memory order, without a copy
    if not np.array_equal(few, np.round(few)):
        return False
    values, counts = np.unique(few, return_counts=True)
    if values.size <= _FEW_VALUES:
        count = _count_values(array)  # rare values may be missing in the sample
        if count <= _FEW_VALUES:
            return count > 1  # with one value the scan is blank
    background = values[counts.argmax()]
    some = math.ceil(math.sqrt(array.size / _COMPARED))
    alike, unlike, small = _neighbours(array, background, some)
    if some > 1 and alike + unlike < _ENOUGH:  # thin and rare labels are searched for in all voxels
        alike, unlike, small = _neighbours(array, background, 1)
    if alike + unlike == 0:
        return False
    return alike > unlike and small < 0.5 * max(1, unlike)


def _count_values(array: NDArray[Any]) -> int:
    """The number of different values, or one above `_FEW_VALUES` at least if there are more."""
    flat, found = array.ravel(order="K"), np.empty(0, array.dtype)
    for first in range(0, flat.size, _PIECE):  # sorting all values of a large scan would take minutes
        piece = flat[first : first + _PIECE]
        found = np.union1d(found, piece[np.isin(piece, found, invert=True)])
        if found.size > _FEW_VALUES:
            break
    return found.size


def _neighbours(array: NDArray[Any], background: Any, step: int) -> tuple[int, int, int]:
    """The numbers of neighbours, without background, that are equal, that differ, and that differ by at most 2.

    Every ``step``-th line of voxels along each axis is examined.
    """
    alike = unlike = small = 0
    for axis in range(array.ndim):
        lines = np.moveaxis(array, axis, 0)[:, ::step, ::step].reshape(array.shape[axis], -1)
        lines = lines[np.concatenate([[True], (lines[1:] != lines[:-1]).any(axis=1)])]
        first, second = lines[:-1], lines[1:]
        foreground = (first != background) & (second != background)
        steps = np.abs(second[foreground].astype(np.float64) - first[foreground])
        alike += int((steps == 0).sum())
        unlike += int((steps > 0).sum())
        small += int(((steps > 0) & (steps <= 2)).sum())
    return alike, unlike, small
