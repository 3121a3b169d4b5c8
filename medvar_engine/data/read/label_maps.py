"""Label maps, masks and statistics among the files that hold a volume: told by their names and by their values."""

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
_FEW_VALUES = 16  # a scan has more; a mask has two
_SAMPLE = 20_000  # voxels whose values are counted
_COMPARED = 200_000  # voxels that are compared with their neighbours, along each axis
_ENOUGH = 1000  # neighbours, to judge by


def names_labels(stem: str) -> bool:
    """Whether a file name ends as those of label maps and statistics do: ``…_labels``, ``…_seg``, ``…-mask``."""
    return _NAME.search(stem) is not None


def looks_like_labels(array: NDArray[Any]) -> bool:
    """Whether the values are those of a label map or a mask, however many labels there are and however thin they are.

    Whole numbers of which there are few make no scan. Many make one unless most neighbours are alike, and neighbours
    that are not differ by any amount: in a scan, even a smooth one of 8 bits, they differ by little. Slices that
    repeat the one before, as in a scan enlarged by nearest neighbour, are looked at once.
    """
    if array.size == 0:
        return False
    few = array.ravel(order="K")[:: max(1, array.size // _SAMPLE)]  # in memory's order, which copies nothing
    if not np.array_equal(few, np.round(few)):
        return False
    values, counts = np.unique(few, return_counts=True)
    if values.size <= _FEW_VALUES:
        count = np.unique(array).size  # the sample may have missed what is rare
        if count <= _FEW_VALUES:
            return count > 1  # with one value it is blank
    background = values[counts.argmax()]
    some = math.ceil(math.sqrt(array.size / _COMPARED))
    alike, unlike, small = _neighbours(array, background, some)
    if some > 1 and alike + unlike < _ENOUGH:  # what is thin and rare is looked for everywhere
        alike, unlike, small = _neighbours(array, background, 1)
    if alike + unlike == 0:
        return False
    return alike > unlike and small < 0.5 * max(1, unlike)


def _neighbours(array: NDArray[Any], background: Any, step: int) -> tuple[int, int, int]:
    """How many neighbours, none of them background, are alike, differ, and differ by 2 at most.

    Of the lines of voxels along each axis every ``step``-th in both directions is looked at.
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
