"""Compare the pixels of a written file with a picture."""

from __future__ import annotations

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from PIL.Image import DecompressionBombError

from medvar_engine.errors import MedvarError
from medvar_engine.write.dicom import write_dicom
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.picture import Picture
from medvar_engine.write.png import write_png, write_png16
from medvar_engine.write.provenance import kind_of

# What Pillow, pydicom and nibabel raise for damaged files, and for pixels too many to be an image.
_UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    AttributeError,
    RuntimeError,
    DecompressionBombError,
    zlib.error,
)


def differing_pixels(file: Path, picture: Picture) -> int:
    """How many pixels of a PNG, NIfTI or DICOM file are not those of ``picture`` written in the same format.

    An image of another size differs in all of them. Raises `MedvarError` when the file's pixels cannot be read.
    """
    kind = kind_of(file)
    found = read_pixels(file, kind)
    with TemporaryDirectory() as folder:
        fresh = Path(folder) / file.name
        if kind == "png":
            fresh = (write_png16 if found.dtype == np.uint16 else write_png)(fresh.with_suffix(".png"), picture)
        elif kind == "dicom":
            fresh = write_dicom(fresh.with_suffix(".dcm"), picture)
        else:
            fresh, _ = write_nifti(fresh, picture)
        expected = read_pixels(fresh, kind)
    return int((found != expected).sum()) if found.shape == expected.shape else max(found.size, expected.size)


def gray_pixels(file: Path) -> npt.NDArray[np.generic]:
    """One gray slice ``(H, W)`` of any PNG, NIfTI or DICOM file, in whatever unit. Raises `MedvarError` otherwise."""
    try:
        kind = kind_of(file)
    except OSError as error:
        raise MedvarError(f"Cannot read {file}: {error.strerror or error}.") from error
    pixels = np.squeeze(read_pixels(file, kind))
    if kind == "png" and pixels.ndim == 3:
        pixels = pixels[..., :3].mean(axis=-1)
    if pixels.ndim != 2 or pixels.dtype.kind not in "buif":
        raise MedvarError(f"{file} is looked at as one gray slice, but it holds numbers of the shape {pixels.shape}.")
    return pixels.T if kind == "nifti" else pixels


def read_pixels(file: Path, kind: str) -> npt.NDArray[np.generic]:
    """The numbers in a file of the kind that `kind_of` found, as they lie: NIfTI ``(W, H, 1)``, others ``(H, W)``.

    Raises `MedvarError` when they cannot be read.
    """
    try:
        if kind == "png":
            from PIL import Image

            with Image.open(file, formats=["PNG"]) as image:
                return np.asarray(image)
        if kind == "dicom":
            import pydicom

            return np.asarray(pydicom.dcmread(file).pixel_array)
        return _volume(file)
    except _UNREADABLE as error:
        raise MedvarError(f"The pixels of {file} cannot be read: {error}.") from error


def _volume(file: Path) -> npt.NDArray[np.generic]:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    if not file.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError("it is neither PNG, DICOM nor NIfTI (.nii, .nii.gz)")
    try:
        return np.asarray(nibabel.Nifti1Image.from_filename(file).dataobj)
    except (ImageFileError, HeaderDataError, WrapStructError) as error:
        raise ValueError(str(error)) from error
