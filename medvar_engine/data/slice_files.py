"""Makes harmonised slices from single slices listed in an index, a work unit of `prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path

import numpy as np

from medvar_engine.data.duplicates.fingerprint import fingerprint
from medvar_engine.data.harmonise.harmonise import harmonise
from medvar_engine.data.harmonise.hounsfield import check_hu
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.harmonise.slicing import AXES, PLANES, view
from medvar_engine.data.identity.series_identity import Identity, relative
from medvar_engine.data.read.dicom_file import DICOM_SUFFIXES, looks_like_dicom
from medvar_engine.data.read.read_slice import GreyArray, read_grey, read_single_dicom
from medvar_engine.data.read.refusal import reason_of
from medvar_engine.data.recipe.slice_index_file import IMAGE_SUFFIXES, SliceFile
from medvar_engine.data.series_slices import SeriesSlices, facts_of, to_matrix
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray
from medvar_engine.value_range import CodeArray, ValueRange, encode

Listed = tuple[SliceFile, Identity]


def slices_of_files(files: Sequence[Listed], recipe: Recipe, source: Path, *, synthetic: bool = False) -> SeriesSlices:
    """The slices in ``files``, harmonised by ``recipe``; unusable ones are left out, with the reasons.

    With ``synthetic``, images that are marked as made by a generative model are accepted.
    """
    codes: list[CodeArray] = []
    facts: list[SliceFacts] = []
    left_out: list[tuple[str, str]] = []
    for file, identity in files:
        try:
            image, values, spacing = _harmonised(file, recipe, synthetic)
            fitted, pixel_mm = to_matrix(image[np.newaxis], spacing, recipe)
        except Exception as error:  # libraries raise exceptions of any type, and no file may end a run
            left_out.append((relative(file.path, source), reason_of(error).removeprefix(f"{file.path}: ")))
            continue
        codes.append(np.ascontiguousarray(encode(fitted)))
        facts.append(facts_of(identity, values, pixel_mm, file.plane, fingerprint(fitted[0])))
    size = recipe.size
    stacked = np.concatenate(codes) if codes else np.zeros((0, size, size), dtype=np.uint16)
    return SeriesSlices(stacked, tuple(facts), left_out=tuple(left_out))


def is_wanted(plane: str, recipe: Recipe) -> bool:
    """Whether slices of a plane are requested.

    Planes that volumes are not cut into belong to a request for all planes.
    """
    asked = set(recipe.rules.planes)
    return plane in asked or (plane not in PLANES and asked.issuperset(PLANES))


def is_cut_short(values: ValueRange | None, region: str, recipe: Recipe) -> bool:
    """Whether the HU range of a CT slice is narrower than the window of its region."""
    if values is None or values.unit != "HU":
        return False
    window = recipe.ct_window(region)
    return values.low > window.low or values.high < window.high


def _harmonised(file: SliceFile, recipe: Recipe, synthetic: bool) -> tuple[FloatArray, ValueRange, tuple[float, float]]:
    """The slice (H, W) in [-1, 1], the values of -1 and 1, and its pixel size in mm, NaN if unknown."""
    if file.path.suffix.lower() in IMAGE_SUFFIXES:
        image, values = _by_window(read_grey(file.path, synthetic=synthetic), file, recipe)
        side = nan if file.spacing_mm is None else file.spacing_mm
        return image, values, (side, side)
    if looks_like_dicom(file.path):
        return _of_dicom(file, recipe, synthetic)
    known = ", ".join((*IMAGE_SUFFIXES, *DICOM_SUFFIXES))
    raise MedvarError(f"its format is none of a single slice: its name ends in none of {known}, and it is no DICOM")


def _by_window(grey: GreyArray, file: SliceFile, recipe: Recipe) -> tuple[FloatArray, ValueRange]:
    """CT in HU is clipped to the window of its region, like volumes; other images keep their range."""
    white = float(np.iinfo(grey.dtype).max)
    stored = file.values or ValueRange(0.0, white, "arbitrary")
    image = ValueRange(0.0, white, stored.unit).to_image(grey.astype(np.float32))
    if stored.unit != "HU":
        return image, stored
    window = recipe.ct_window(file.region)
    return window.to_image(stored.to_values(image)), window


def _of_dicom(file: SliceFile, recipe: Recipe, synthetic: bool) -> tuple[FloatArray, ValueRange, tuple[float, float]]:
    volume = read_single_dicom(file.path, file.modality, synthetic=synthetic)
    plane = next(plane for plane in PLANES if volume.array.shape[AXES[plane][0]] == 1)
    if file.plane in PLANES and file.plane != plane:
        raise MedvarError(f"index.csv says {file.plane}, but according to the DICOM header the plane is {plane}")
    if file.modality == "CT":
        stated = synthetic or recipe.window is not None or file.region in recipe.windows
        check_hu(volume, window_stated=stated)
    scan = harmonise(volume, file.modality, file.region, recipe)
    _, rows, columns = AXES[plane]
    return (
        scan.values.to_image(view(volume.array, plane)[0]),
        scan.values,
        (volume.spacing[rows], volume.spacing[columns]),
    )
