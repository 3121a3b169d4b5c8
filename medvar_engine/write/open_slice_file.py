"""Opens files with one slice, which may be untrusted: nothing larger than such a file is read."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvar_engine.errors import MedvarError

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydicom.dataset import Dataset

_MOST_ELEMENTS = 10_000  # of a DICOM file; medvar writes about a hundred
_NIFTI_HEADER = 348  # bytes
MAX_BYTES = 64 * 2**20
"""Largest size of a file, also unpacked, and of its pixels. A slice of 1024 × 1024 float32 has 4 MiB."""


def open_png(path: Path) -> Image:
    """Open a PNG and read the chunks before its pixels. Raises `MedvarError` for other files."""
    from PIL import Image

    _check_file(path)
    try:
        image = Image.open(path, formats=["PNG"])
    except Exception as error:  # Pillow raises exceptions of many types for damaged files
        raise MedvarError(f"{path} is a damaged PNG: {error}.") from error
    _check_pixels(path, image.size, len(image.getbands()) * (1 if image.mode in ("L", "P", "RGB", "RGBA") else 4))
    return image


def open_dicom(path: Path) -> Dataset:
    """Read the data set of a DICOM file. Raises `MedvarError` for other files."""
    from medvar_engine.data.read import dicom_file

    _check_file(path)
    dataset = dicom_file.open_dicom(path, largest=MAX_BYTES, most_elements=_MOST_ELEMENTS)
    try:
        sides = [int(dataset.get(name) or 1) for name in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")]
        bits = int(dataset.get("BitsAllocated") or 8)
    except Exception as error:  # values are converted on access
        raise MedvarError(f"{path} is not a complete DICOM file: {error}.") from error
    _check_pixels(path, sides, -(-bits // 8))
    return dataset


def open_nifti(path: Path) -> Any:
    """Read a NIfTI image completely into memory. Raises `MedvarError` for other files."""
    import nibabel

    from medvar_engine.data.read.nifti_extensions import check_extensions, quiet

    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise MedvarError(f"{path} is neither PNG, DICOM nor NIfTI (.nii, .nii.gz), so it contains no MedVAR trace.")
    _check_file(path)
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MedvarError(f"{path} is not a complete NIfTI file: {error}.") from error
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error
    if len(content) > MAX_BYTES:
        raise _too_large(path)
    try:
        header = nibabel.Nifti1Header(content[:_NIFTI_HEADER], check=False)
        end = int(header["vox_offset"])
        check_extensions(content, _NIFTI_HEADER, end, little_endian=header.endianness == "<")
        with quiet():
            image = nibabel.Nifti1Image.from_bytes(content)
        sides, itemsize = [int(side) for side in image.shape], image.header.get_data_dtype().itemsize
    except Exception as error:  # nibabel raises exceptions of many types for damaged files
        raise MedvarError(f"{path} is not a complete NIfTI file: {error}.") from error
    if min(sides, default=1) < 0:
        raise MedvarError(f"{path} is not a complete NIfTI file: its header has the impossible shape {tuple(sides)}.")
    _check_pixels(path, sides, itemsize)
    return image


def _check_file(path: Path) -> None:
    try:
        if not path.is_file():
            raise MedvarError(
                f"Cannot read {path}: " + ("it is not a file." if path.exists() else "it does not exist.")
            )
        if path.stat().st_size > MAX_BYTES:
            raise _too_large(path)
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error


def _check_pixels(path: Path, sides: Any, itemsize: int) -> None:
    if math.prod(sides) * itemsize > MAX_BYTES:
        raise _too_large(path)


def _too_large(path: Path) -> MedvarError:
    return MedvarError(
        f"{path} was not opened: it is larger than any image that medvar writes ({MAX_BYTES >> 20} MiB, unpacked)."
    )
