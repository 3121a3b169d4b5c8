"""Compares the pixels of a written file with an image."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.write.dicom import write_dicom
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.open_slice_file import open_dicom, open_nifti, open_png
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png, write_png16
from medvar_engine.write.provenance import kind_of


def differing_pixels(file: Path, *slices: OutputImage) -> int:
    """The number of pixels of a PNG, NIfTI or DICOM file that differ from ``slices`` written in the same format.

    Only a NIfTI file can have more than one slice. In an image of another size, all pixels differ. Raises `MedvarError`
    when the file's pixels cannot be read.
    """
    kind = kind_of(file)
    found = read_pixels(file, kind)
    expected = [_written(file, kind, found.dtype, image) for image in slices]
    whole = expected[0] if len(expected) == 1 else np.concatenate(expected, axis=-1)
    return int((found != whole).sum()) if found.shape == whole.shape else max(found.size, whole.size)


def _written(file: Path, kind: str, dtype: np.dtype[Any], image: OutputImage) -> npt.NDArray[np.generic]:
    """The stored numbers of ``image`` in a file like ``file``."""
    with TemporaryDirectory() as folder:
        fresh = Path(folder) / file.name
        if kind == "png":
            fresh = (write_png16 if dtype == np.uint16 else write_png)(fresh.with_suffix(".png"), image)
        elif kind == "dicom":
            fresh = write_dicom(fresh.with_suffix(".dcm"), image)
        else:
            fresh, _ = write_nifti(fresh, image)
        return read_pixels(fresh, kind)


def grey_slices(file: Path) -> list[npt.NDArray[np.generic]]:
    """The grey slices ``(H, W)`` of any PNG, NIfTI or DICOM file, in the unit of the file.

    Only NIfTI can have more than one; they lie along its last axis. Raises `MedvarError` for other files.
    """
    try:
        kind = kind_of(file)
    except OSError as error:
        raise MedvarError(f"Cannot read {file}: {error.strerror or error}.") from error
    pixels = np.squeeze(read_pixels(file, kind))
    if kind == "png" and pixels.ndim == 3:
        pixels = pixels[..., :3].mean(axis=-1)
    if kind == "nifti":
        pixels = pixels.T
    slices = list(pixels) if kind == "nifti" and pixels.ndim == 3 else [pixels]
    if not slices or slices[0].ndim != 2 or pixels.dtype.kind not in "buif":
        raise MedvarError(f"{file} must hold grey slices, but its array has the shape {pixels.shape}.")
    return slices


def read_pixels(file: Path, kind: str) -> npt.NDArray[np.generic]:
    """The stored numbers of a file of ``kind``, see `kind_of`: ``(W, H, 1)`` for NIfTI, otherwise ``(H, W)``.

    Raises `MedvarError` when they cannot be read.
    """
    try:
        match kind:
            case "png":
                with open_png(file) as image:
                    return np.asarray(image)
            case "dicom":
                return _dicom_pixels(file)
            case _:
                return np.asarray(open_nifti(file).dataobj)
    except MedvarError:
        raise
    except Exception as error:  # Pillow and nibabel raise exceptions of many types for damaged files
        raise MedvarError(f"The pixels of {file} cannot be read: {error}.") from error


def _dicom_pixels(file: Path) -> npt.NDArray[np.generic]:
    from medvar_engine.data.read.dicom_decode import PixelFile
    from medvar_engine.data.read.dicom_stored import stored_of

    dataset = open_dicom(file)
    if any(int(dataset.get(name) or 1) != 1 for name in ("NumberOfFrames", "SamplesPerPixel")):
        raise MedvarError(f"The pixels of {file} cannot be read: one frame of grey values is expected.")
    (pixels,) = PixelFile(file, stored_of(dataset, None)).frames([0])
    return pixels
