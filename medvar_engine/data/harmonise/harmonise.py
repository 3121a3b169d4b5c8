"""Harmonisation of the values of a volume: the values that become -1 and 1, in CT and in MR."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medvar_engine.data.harmonise.faces import face_region
from medvar_engine.data.harmonise.intensity import ct_window, mr_foreground, mr_range
from medvar_engine.data.harmonise.percentiles import RankedValues
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import ValueRange

HEAD_REGIONS = ("brain", "head")

_LOWEST_OF_OFFSET = -200  # noise of air shifted to 0; real HU have air or fat far below
_HIGHEST_HU = 32767  # highest value of signed 16-bit integers, for extended CT scales


@dataclass(frozen=True, slots=True)
class Harmonised:
    """The values that become -1 and 1 in the images of a volume, and the value above which a voxel is tissue.

    ``values.to_image`` computes the images; applied to a few slices at a time it needs less memory.
    """

    values: ValueRange
    foreground: float


def harmonise(volume: Volume, modality: str, region: str, recipe: Recipe) -> Harmonised:
    """The range of a volume: for CT the window of its region, for MR percentiles of its foreground.

    Raises `MedvarError` for a blank MR volume. `check_hu` checks whether CT is in HU.
    """
    if modality == "CT":
        window = recipe.ct_window(region)
        return Harmonised(ct_window((window.low, window.high)), recipe.ct_foreground_hu)
    ranked = RankedValues(volume.array)
    foreground = mr_foreground(ranked)
    return Harmonised(mr_range(ranked, foreground, recipe.mr_percentiles), foreground)


def treat_face(volume: Volume, region: str, faces: str) -> tuple[Volume, str | None]:
    """Treat the face of a head according to the recipe's ``faces``; returns the volume, and a remark if a face remains.

    Only heads are examined. ``crop`` fills the face with the lowest value of the scan. Raises `MedvarError` for a scan
    with a face when faces are skipped.
    """
    if region not in HEAD_REGIONS or not volume.oriented:
        return volume, None
    face = face_region(volume)
    if face is None:
        return volume, None
    if faces == "skip":
        raise MedvarError("it shows a face, and faces are skipped; faces=crop removes the face and keeps the head")
    if faces == "keep":
        return volume, "shows a face; faces=crop removes it, faces=skip leaves such series out"
    array = volume.array.copy()
    array[face] = array.min()
    return replace(volume, array=array), None


def check_hu(volume: Volume, *, window_stated: bool = False) -> None:
    """Raise `MedvarError` for CT whose values cannot be HU: air is −1000, fat is below 0, nothing is above 32767.

    Values that were clipped to a window or to 8 bits are accepted if the user has stated the window to show
    (``window_stated``).
    """
    low, high = float(volume.array.min()), float(volume.array.max())
    if high > _HIGHEST_HU:
        raise MedvarError(
            f"its values are not HU: they reach {high:.0f}, like signed values that are read as unsigned; at most "
            f"{_HIGHEST_HU} is possible"
        )
    # Where noise of the air lies about 0, some is below it; bone alone is never so much.
    tissue = volume.array[volume.array > 500] if low > _LOWEST_OF_OFFSET else volume.array[:0]
    least = 0.05 if low >= 0 else 0.2
    if tissue.size > least * volume.array.size and 900 < np.median(tissue) < 1300:
        raise MedvarError(
            f"its values are not HU: nothing is below {min(low, 0):.0f}, and most tissue is near "
            f"{np.median(tissue):.0f}; subtract 1024"
        )
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
