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
_SAMPLE = 100_000
_VOXELS = 1_000_000  # that are compared with their neighbours, along each axis


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
    alike = unlike = small = 0
    for axis in range(array.ndim):
        lines = _lines(array, axis)
        first, second = lines[:-1], lines[1:]
        foreground = (first != background) & (second != background)
        steps = np.abs(second[foreground].astype(np.float64) - first[foreground])
        alike += int((steps == 0).sum())
        unlike += int((steps > 0).sum())
        small += int(((steps > 0) & (steps <= 2)).sum())
    if alike + unlike == 0:
        return False
    share, smooth = alike / (alike + unlike), small / max(1, unlike)
    return share > 0.5 and smooth < 0.5


def _lines(array: NDArray[Any], axis: int) -> NDArray[Any]:
    """Lines of voxels along ``axis``, a share of them in a large array, without planes that repeat the one before."""
    lines = np.moveaxis(array, axis, 0)
    step = max(1, math.isqrt(array.size // _VOXELS))
    lines = lines[:, ::step, ::step].reshape(len(lines), -1)
    return lines[np.concatenate([[True], (lines[1:] != lines[:-1]).any(axis=1)])]
