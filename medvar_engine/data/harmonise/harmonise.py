"""Make a volume comparable with others: the values that -1 and 1 stand for, in CT and in MR."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medvar_engine.data.harmonise.faces import face_region
from medvar_engine.data.harmonise.intensity import ct_window, mr_foreground, mr_range
from medvar_engine.data.harmonise.percentiles import Ranked
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import ValueRange

HEAD_REGIONS = ("brain", "head")

_HIGHEST_HU = 32767  # of the extended scale: 16 bits with a sign


@dataclass(frozen=True, slots=True)
class Harmonised:
    """What -1 and 1 stand for in the images of a volume, and the value above which a voxel is tissue.

    ``values.to_image`` makes the images; of a few slices at a time it takes less memory than of the volume.
    """

    values: ValueRange
    foreground: float


def harmonise(volume: Volume, modality: str, region: str, recipe: Recipe) -> Harmonised:
    """CT is cut to the window of its region, MR to percentiles of its foreground.

    Raises `MedvarError` for MR that is blank. Whether CT is in HU, `check_hu` asks.
    """
    if modality == "CT":
        window = recipe.ct_window(region)
        return Harmonised(ct_window((window.low, window.high)), recipe.ct_foreground_hu)
    ranked = Ranked(volume.array)
    foreground = mr_foreground(ranked)
    return Harmonised(mr_range(ranked, foreground, recipe.mr_percentiles), foreground)


def treat_face(volume: Volume, region: str, faces: str) -> tuple[Volume, str | None]:
    """The volume with its face treated as the recipe's ``faces`` says, and a remark when a face stays.

    Only heads are looked at. ``crop`` fills the face with the lowest value of the scan. Raises `MedvarError` for a scan
    with a face when faces are to be skipped.
    """
    if region not in HEAD_REGIONS or not volume.oriented:
        return volume, None
    face = face_region(volume)
    if face is None:
        return volume, None
    if faces == "skip":
        raise MedvarError("it shows a face, and faces are skipped; faces=crop takes the face away and keeps the head")
    if faces == "keep":
        return volume, "shows a face; faces=crop takes it away, faces=skip leaves such series out"
    array = volume.array.copy()
    array[face] = array.min()
    return replace(volume, array=array), None


def check_hu(volume: Volume, *, window_stated: bool = False) -> None:
    """Raise `MedvarError` for CT of which the values cannot be HU: air at −1000, fat below 0, nothing above 32767.

    What was cut to a window, or to 8 bits, passes when the user has said which window the values are to be shown in
    (``window_stated``); so do images that a model made, of which nobody asks.
    """
    low, high = float(volume.array.min()), float(volume.array.max())
    if high > _HIGHEST_HU:
        raise MedvarError(
            f"its values are no HU: they reach {high:.0f}, as signed values do that are taken for unsigned ones; at "
            f"most {_HIGHEST_HU} is possible"
        )
    tissue = volume.array[volume.array > 500] if low >= 0 else volume.array[:0]
    if tissue.size > 0.05 * volume.array.size and 900 < np.median(tissue) < 1300:
        raise MedvarError(
            f"its values are no HU: nothing is below 0, and most tissue is near {np.median(tissue):.0f}; subtract 1024"
        )
    if window_stated:
        return
    if low >= 0:
        raise MedvarError(
            f"its values are no HU: nothing is below 0, where air and fat are, and they reach {high:.0f}; when they "
            "are HU of which the rest was cut off, say the window (--window)"
        )
    if low >= -128 and high <= 127:
        raise MedvarError(
            f"its values are no HU: all lie within 8 bits, {low:.0f} to {high:.0f}; when they are HU of which the rest "
            "was cut off, say the window (--window)"
        )
