"""Read NIfTI (nibabel), NRRD and MetaImage (SimpleITK) files as volumes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from medvar_engine.data.orientation import to_ras
from medvar_engine.data.volume import Volume
from medvar_engine.errors import MedvarError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_LABEL_NAME = re.compile(r"(^|[._-])(d?seg|labels?|labelmap|masks?|segmentations?|lesion_mask|gt)$", re.IGNORECASE)


def is_volume_file(path: Path) -> bool:
    """Whether the name says NIfTI, NRRD or MetaImage."""
    return path.name.lower().endswith(NIFTI_SUFFIXES + ITK_SUFFIXES)


def stem(path: Path) -> str:
    """The file name without the format's suffix: ``brain.nii.gz`` → ``brain``."""
    for suffix in sorted(NIFTI_SUFFIXES + ITK_SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def is_label_name(path: Path) -> bool:
    """Whether the name ends as label maps' names do: ``…_labels``, ``…_seg``, ``…-mask``."""
    return _LABEL_NAME.search(stem(path)) is not None


def looks_like_labels(array: NDArray[Any]) -> bool:
    """Whether the values are those of a label map: few whole numbers, in areas of one number.

    In an image, even one of 8 bits, neighbours that differ from the background seldom have the same value.
    """
    if array.size == 0:
        return False
    few = array.ravel()[:: max(1, array.size // 100_000)]
    if not np.array_equal(few, np.round(few)) or few.min() < 0 or np.unique(few).size > 256:
        return False
    first, second = array[:-1], array[1:]
    foreground = first > 0
    return bool(foreground.any()) and float((first == second)[foreground].mean()) > 0.8


def load(path: Path, uid: str, phase_step: int) -> Iterator[Volume]:
    """The volumes of one file: one, or every ``phase_step``-th of a 4-D file.

    Modality and patient are not in these formats: they come back as None.
    """
    nifti = path.name.lower().endswith(NIFTI_SUFFIXES)
    array, affine = _read_nifti(path) if nifti else _read_itk(path)
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or 0 in array.shape or min(array.shape[:3]) < 2:
        raise MedvarError(f"{path}: a volume of 3 dimensions is expected, but the shape is {array.shape}.")
    phases = array.shape[3]
    for phase in range(0, phases, phase_step):
        values = array[..., phase]
        if looks_like_labels(values):
            raise MedvarError(f"{path}: its values are those of a label map, not of an image.")
        turned, turned_affine, spacing = to_ras(values, affine, path)
        name = f"phase {phase + 1} of {phases}" if phases > 1 else None
        yield Volume(turned, turned_affine, spacing, None, None, uid, path, name)


def _read_nifti(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    try:
        image: Any = nib.load(path)
        array = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        raise MedvarError(f"{path}: cannot be read as NIfTI, it may be truncated ({error}).") from error
    header = image.header
    if int(header["intent_code"]) == 1002:  # NIFTI_INTENT_LABEL
        raise MedvarError(f"{path}: its header says that it is a label map (intent code 1002).")
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise MedvarError(f"{path}: its header does not say how it lies in the patient (sform and qform code are 0).")
    affine[:3] *= {"meter": 1000.0, "micron": 0.001}.get(header.get_xyzt_units()[0], 1.0)
    if array.dtype.fields is not None or np.iscomplexobj(array):
        raise MedvarError(f"{path}: colour and complex images are not used (data type {array.dtype}).")
    while array.ndim > 4 and array.shape[-1] == 1:
        array = array[..., 0]
    return array, affine


def _read_itk(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    try:
        image: Any = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise MedvarError(f"{path}: cannot be read, it may be truncated ({reason}).") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise MedvarError(f"{path}: one value a voxel is expected, found {image.GetNumberOfComponentsPerPixel()}.")
    dimension = image.GetDimension()
    if dimension not in (3, 4):
        raise MedvarError(f"{path}: a volume of 3 dimensions is expected, found {dimension}.")
    direction = np.asarray(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return sitk.GetArrayFromImage(image).T, LPS_TO_RAS @ affine
