"""Reads NRRD and MetaImage with SimpleITK, attached and detached, after their headers were checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from medvar_engine.data.read.assumed_geometry import NOTHING, Assumed
from medvar_engine.data.read.header_limits import DEFLATE_RATIO, SCAN_RATIO
from medvar_engine.data.read.itk_header import META_SUFFIXES, NRRD_SUFFIXES, data_files, stated_geometry
from medvar_engine.data.read.orientation import lps_to_ras
from medvar_engine.errors import MedvarError

ITK_SUFFIXES = NRRD_SUFFIXES + META_SUFFIXES


def check(path: Path, assumed: Assumed, ratio: int = SCAN_RATIO) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The data file of a detached header, after all checks, and remarks about ``assumed`` values.

    Raises `MedvarError` when the header is invalid, or lacks orientation or voxel size and nothing is assumed.
    """
    files, known = data_files(path, ratio), stated_geometry(path)
    missing = []
    if not known.orientation and assumed.orientation is None:
        missing.append("the orientation in the patient (state it with --assume-orientation LPS)")
    if not known.spacing and assumed.spacing_mm is None:
        missing.append("the size of its voxels (state it in mm with --assume-spacing 1)")
    if missing:
        raise MedvarError(f"{path}: its header lacks {' and '.join(missing)}.")
    return files, assumed.remarks(orientation=not known.orientation, spacing=not known.spacing)


def read(
    path: Path, assumed: Assumed = NOTHING, *, labels: bool = False
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Read voxels of 3 or 4 dimensions, and their affine to RAS mm. ``labels`` accepts label maps."""
    check(path, assumed, DEFLATE_RATIO if labels else SCAN_RATIO)
    known = stated_geometry(path)
    reader = sitk.ImageFileReader()
    # The format is given, because ITK would try all its formats on an untrusted file otherwise.
    reader.SetImageIO("NrrdImageIO" if path.name.lower().endswith(NRRD_SUFFIXES) else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        raise MedvarError(f"{path}: cannot be read, it may be truncated ({reason}).") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise MedvarError(
            f"{path}: one value per voxel is expected, but it has {image.GetNumberOfComponentsPerPixel()}."
        )
    dimension = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    affine[:3] *= known.millimetres
    array = sitk.GetArrayFromImage(image).T
    if known.orientation and known.spacing:
        return array, lps_to_ras(affine)
    sides = [float(side) for side in np.linalg.norm(affine[:3, :3], axis=0)]
    if not known.spacing:
        sides = [float(assumed.spacing_mm or 1.0)] * 3
    if known.orientation:
        affine[:3, :3] *= np.asarray(sides) / np.linalg.norm(affine[:3, :3], axis=0)
        return array, lps_to_ras(affine)
    return array, assumed.affine((sides[0], sides[1], sides[2]))
