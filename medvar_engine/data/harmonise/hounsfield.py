"""Checks that CT values are HU by what they show: nothing darker than air, fat below 0, nothing above 32767."""

from __future__ import annotations

import math

import numpy as np

from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray

_LOWEST_OF_OFFSET = -200  # noise of air shifted to 0; real HU have air or fat far below
_HIGHEST_HU = 32767  # highest value of signed 16-bit integers, for extended CT scales
_EXAMINED = 1_000_000  # number of voxels
_PADDING_GAP = 200  # HU between values that are not shown, such as −2000, and the lowest that are
_DARKEST = -1500  # HU; air is -1000, and noise does not reach further often


def check_hu(volume: Volume, *, window_stated: bool = False) -> None:
    """Raise `MedvarError` for CT with values that cannot be HU: air is −1000, fat is below 0, nothing is above 32767.

    Values that were clipped to a window or to 8 bits are accepted if the user has stated the window to show
    (``window_stated``).
    """
    low, high = float(volume.array.min()), float(volume.array.max())
    if high > _HIGHEST_HU:
        raise MedvarError(
            f"its values are not HU: they reach {high:.0f}, like signed values that are read as unsigned; at most "
            f"{_HIGHEST_HU} is possible"
        )
    step = math.ceil((volume.array.size / _EXAMINED) ** (1 / 3))
    some = volume.array[::step, ::step, ::step]
    _check_offset(some, low)
    _check_darkest(some, low)
    if window_stated:
        return
    if low >= 0:
        raise MedvarError(
            f"its values are not HU: nothing is below 0, where air and fat are, and they reach {high:.0f}; if they are "
            "clipped HU, state the window (--window)"
        )
    if low >= -128 and high <= 127:
        raise MedvarError(
            f"its values are not HU: all lie within 8 bits, {low:.0f} to {high:.0f}; if they are clipped HU, state the "
            "window (--window)"
        )


def _check_offset(values: FloatArray, low: float) -> None:
    """Refuse values to which 1024 was added, as scanners store them, also if there is padding below them."""
    above = values[values > low]
    lowest_shown = float(above.min()) if above.size else low
    if lowest_shown - low < _PADDING_GAP:
        lowest_shown = low
    if lowest_shown <= _LOWEST_OF_OFFSET:
        return
    # Where noise of the air lies about 0, some is below it; bone alone is never so much.
    tissue = values[values > 500]
    least = 0.05 if lowest_shown >= 0 else 0.2
    if tissue.size > least * values.size and 900 < np.median(tissue) < 1300:
        raise MedvarError(
            f"its values are not HU: nothing is below {min(lowest_shown, 0):.0f}, and most tissue is near "
            f"{np.median(tissue):.0f}; subtract 1024"
        )


def _check_darkest(values: FloatArray, low: float) -> None:
    """Refuse values of which many are darker than air can be.

    The lowest value alone says nothing, because it may be that of padding.
    """
    beyond = values[(values < _DARKEST) & (values > low)]
    if beyond.size > 0.05 * values.size:
        raise MedvarError(
            f"its values are not HU: many are near {np.median(beyond):.0f}, but nothing is darker than air at -1000; "
            "1024 may have been subtracted twice, or the values multiplied"
        )
