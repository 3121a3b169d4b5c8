"""Files with one whole volume each: NIfTI, NRRD and MetaImage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medvar_engine.data.read import read_itk, read_nifti
from medvar_engine.data.read.assumed_geometry import NOTHING, Assumed
from medvar_engine.data.read.label_maps import looks_like_labels, names_labels
from medvar_engine.data.read.orientation import to_ras
from medvar_engine.data.read.probability_maps import REMARK, lies_between_0_and_1, looks_like_probabilities
from medvar_engine.data.read.read_itk import ITK_SUFFIXES
from medvar_engine.data.read.read_nifti import NIFTI_SUFFIXES
from medvar_engine.data.read.volume import MINIMUM_SLICES, Volume
from medvar_engine.errors import MedvarError


def is_volume_file(path: Path) -> bool:
    """Whether the file name is that of a NIfTI, NRRD or MetaImage file."""
    return path.name.lower().endswith(NIFTI_SUFFIXES + ITK_SUFFIXES)


def stem(path: Path) -> str:
    """The file name without the format's suffix: ``brain.nii.gz`` → ``brain``."""
    for suffix in sorted(NIFTI_SUFFIXES + ITK_SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def is_label_name(path: Path) -> bool:
    """Whether the name ends like those of label maps: ``…_labels``, ``…_seg``, ``…-mask``."""
    return names_labels(stem(path))


def check(path: Path, *, synthetic: bool, assumed: Assumed = NOTHING) -> tuple[tuple[Path, ...], bool]:
    """Check the header; returns separate files with the voxels of ``path``, and whether a generative model made them.

    Raises `MedvarError` when the header is invalid or the file is not a scan. ``synthetic`` accepts images made by a
    generative model, and ``assumed`` files without orientation.
    """
    if is_label_name(path):
        raise MedvarError(f"{path}: its name says that it is a label map or a statistic, not an image.")
    if not _is_nifti(path):
        return read_itk.check(path, assumed)[0], False
    made = read_nifti.check(path, synthetic=synthetic, assumed=assumed)
    return read_nifti.data_files(path), made


def load(
    path: Path, uid: str, phase_step: int, minimum: int = MINIMUM_SLICES, assumed: Assumed = NOTHING
) -> Iterator[Volume]:
    """The volumes of one file, of at least ``minimum`` slices: one, or every ``phase_step``-th of a 4-D file.

    Modality and patient are not in these formats: they come back as None.
    """
    if _is_nifti(path):
        array, affine = read_nifti.read(path, assumed)
        remarks = assumed.remarks(orientation=not read_nifti.has_orientation(path), spacing=False)
    else:
        array, affine = read_itk.read(path, assumed)
        remarks = read_itk.check(path, assumed)[1]
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or min(array.shape) < 1:
        raise MedvarError(f"{path}: a volume of 3 dimensions is expected, but the shape is {array.shape}.")
    fewest = min(array.shape[:3])
    if fewest < minimum:
        raise MedvarError(f"{path}: the shape is {array.shape}; a scan needs at least {minimum} slices.")
    if fewest < MINIMUM_SLICES and not read_nifti.has_unit(path):
        raise MedvarError(
            f"{path}: a synthetic slice without a unit of length, so its pixel size is not known. Make "
            "slices from a dataset of shards with `to_slices`."
        )
    phases = array.shape[3]
    for phase in range(0, phases, phase_step):
        values = array[..., phase]
        if looks_like_labels(values):
            raise MedvarError(f"{path}: its values are those of a label map, not of an image.")
        turned, turned_affine, spacing = to_ras(values, affine, path)
        name = f"phase {phase + 1} of {phases}" if phases > 1 else None
        noted = remarks
        if lies_between_0_and_1(turned):
            if looks_like_probabilities(turned):
                raise MedvarError(f"{path}: its values are those of a probability map or a soft mask, not of an image.")
            noted = (*remarks, REMARK)
        yield Volume(turned, turned_affine, spacing, None, None, uid, path, name, remarks=noted)


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI_SUFFIXES)
