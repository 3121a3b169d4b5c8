"""Read NRRD and MetaImage (SimpleITK), attached and detached, after their headers were found possible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from medvar_engine.data.itk_header import META_SUFFIXES, NRRD_SUFFIXES, data_files
from medvar_engine.data.orientation import lps_to_ras
from medvar_engine.errors import MedvarError

ITK_SUFFIXES = NRRD_SUFFIXES + META_SUFFIXES


def read(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Voxels of 3 or 4 dimensions, and their affine to RAS mm."""
    data_files(path)  # the checks
    reader = sitk.ImageFileReader()
    # By name, or ITK would try every format it knows on a file of a stranger.
    reader.SetImageIO("NrrdImageIO" if path.name.lower().endswith(NRRD_SUFFIXES) else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        raise MedvarError(f"{path}: cannot be read, it may be truncated ({reason}).") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise MedvarError(f"{path}: one value a voxel is expected, found {image.GetNumberOfComponentsPerPixel()}.")
    dimension = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return sitk.GetArrayFromImage(image).T, lps_to_ras(affine)
