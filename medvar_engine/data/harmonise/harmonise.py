"""Harmonisation of the values of a volume: the values that become -1 and 1, in CT and in MR."""

from __future__ import annotations

from dataclasses import dataclass, replace

from medvar_engine.data.harmonise.faces import face_region
from medvar_engine.data.harmonise.intensity import ct_window, mr_foreground, mr_range
from medvar_engine.data.harmonise.percentiles import RankedValues
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError
from medvar_engine.value_range import ValueRange

HEAD_REGIONS = ("brain", "head")


@dataclass(frozen=True, slots=True)
class Harmonised:
    """The values that become -1 and 1 in the images of a volume, and the value above which a voxel is tissue.

    ``values.to_image`` computes the images; applied to a few slices at a time it needs less memory.
    """

    values: ValueRange
    foreground: float


def harmonise(volume: Volume, modality: str, region: str, recipe: Recipe) -> Harmonised:
    """The range of a volume: for CT the window of its region, for MR percentiles of its foreground.

    Raises `MedvarError` for a blank MR volume. `hounsfield.check_hu` checks whether CT is in HU.
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
