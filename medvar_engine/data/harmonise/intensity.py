"""The range of values that becomes [-1, 1]: a window in HU for CT, a clipped histogram for MR."""

from __future__ import annotations

import math

from medvar_engine.data.harmonise.percentiles import RankedValues
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import ValueRange

Window = str | tuple[float, float]
"""A CT window: a name in `CT_WINDOWS`, or the lowest and the highest value in HU."""

CT_WINDOWS = {
    "soft_tissue": (40.0, 400.0),
    "mediastinum": (50.0, 350.0),
    "lung": (-600.0, 1500.0),
    "chest": (-300.0, 1400.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "angiography": (200.0, 800.0),
}
"""Name → (centre, width) in HU, as commonly used (see Radiopaedia, "Windowing (CT)"; institutions differ). Two windows
are additions: ``chest`` shows lung and soft tissue together, with air as black as the padding; ``angiography`` shows
contrast medium.
"""

REGION_WINDOW: dict[str, Window] = {
    "abdomen": "soft_tissue",
    "chest": "chest",
    "heart": "angiography",
    "brain": "brain",
    "prostate": "soft_tissue",
    "spine": "bone",
}
"""Region → its default window."""

OTHER_REGION_WINDOW: Window = "soft_tissue"
"""The default window of regions that are not in `REGION_WINDOW`."""

MR_PERCENTILES = (0.5, 99.5)
"""Percentiles of the foreground that become -1 and 1. The MedVAR paper also clips a histogram, but gives no values."""


def ct_window(window: Window) -> ValueRange:
    """The HU range of a window; its `to_image` is linear inside the range and clips outside.

    Raises `MedvarError` for an unknown name, or when low is not below high.

    >>> ct_window("soft_tissue").to_image(np.float32([-1000, 40, 3000])).tolist()
    [-1.0, 0.0, 1.0]
    """
    if isinstance(window, str):
        if window not in CT_WINDOWS:
            raise MedvarError(
                f"Unknown CT window {window!r}; the windows are {', '.join(CT_WINDOWS)}, or low and high in HU."
            )
        centre, width = CT_WINDOWS[window]
        return ValueRange(centre - width / 2, centre + width / 2, "HU")
    try:
        low, high = (float(value) for value in window)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise MedvarError(f"A CT window must be a name, or two values in HU with low below high, but is {window!r}.")
    return ValueRange(low, high, "HU")


def mr_foreground(ranked: RankedValues) -> float:
    """The value above which an MR voxel counts as tissue: 5 % of the way from the minimum to the 99th percentile."""
    return ranked.low + 0.05 * (ranked.percentile(99) - ranked.low)


def mr_range(ranked: RankedValues, foreground: float, percentiles: tuple[float, float] = MR_PERCENTILES) -> ValueRange:
    """The range between ``percentiles`` of the voxels above ``foreground`` in an MR volume (a clipped histogram).

    Raises `MedvarError` for a blank volume.
    """
    tissue = ranked.count_above(foreground)
    low, high = (ranked.percentile(percent, of=tissue) for percent in percentiles) if tissue else (0.0, 0.0)
    if tissue and not low < high:
        low, high = ranked.percentile(0, of=tissue), ranked.high
    if not low < high:
        if ranked.low == ranked.high:
            raise MedvarError("The scan is blank: all voxels have the same value.")
        raise MedvarError(
            f"The scan has no contrast: almost all voxels above the background have the same value, {ranked.high:g}."
        )
    return ValueRange(low, high, "arbitrary")
