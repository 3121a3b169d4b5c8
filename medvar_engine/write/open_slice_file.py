"""Open files that are to hold one synthetic slice, whoever made them: nothing larger than such a file is read."""

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

MAX_BYTES = 64 * 2**20
"""Of a file, unpacked too, and of its pixels. A slice of 1024 × 1024 float32 is 4 MiB; contact sheets are larger."""


def open_png(path: Path) -> Image:
    """A PNG, its chunks before the pixels read. Raises `MedvarError`."""
    from PIL import Image

    _check_file(path)
    try:
        image = Image.open(path, formats=["PNG"])
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise MedvarError(f"{path} is a damaged PNG: {error}.") from error
    _check_pixels(path, image.size, len(image.getbands()) * (1 if image.mode in ("L", "P", "RGB", "RGBA") else 4))
    return image


def open_dicom(path: Path) -> Dataset:
    """The data set of a DICOM file. Raises `MedvarError`."""
    from medvar_engine.data.read import dicom_file

    _check_file(path)
    dataset = dicom_file.open_dicom(path, largest=MAX_BYTES)
    try:
        sides = [int(dataset.get(name) or 1) for name in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")]
        bits = int(dataset.get("BitsAllocated") or 8)
    except Exception as error:  # values are converted only when they are asked for
        raise MedvarError(f"{path} is not a whole DICOM file: {error}.") from error
    _check_pixels(path, sides, -(-bits // 8))
    return dataset


def open_nifti(path: Path) -> Any:
    """A NIfTI image, all of which is in memory. Raises `MedvarError`."""
    import nibabel

    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise MedvarError(f"{path} is neither PNG, DICOM nor NIfTI (.nii, .nii.gz), so it holds no MedVAR trace.")
    _check_file(path)
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MedvarError(f"{path} is not a whole NIfTI file: {error}.") from error
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error
    if len(content) > MAX_BYTES:
        raise _too_large(path)
    try:
        image = nibabel.Nifti1Image.from_bytes(content)
        sides, itemsize = [int(side) for side in image.shape], image.header.get_data_dtype().itemsize
    except Exception as error:  # nibabel raises many kinds on damaged files
        raise MedvarError(f"{path} is not a whole NIfTI file: {error}.") from error
    if min(sides, default=1) < 0:
        raise MedvarError(f"{path} is not a whole NIfTI file: its header claims the impossible shape {tuple(sides)}.")
    _check_pixels(path, sides, itemsize)
    return image


def _check_file(path: Path) -> None:
    try:
        if not path.is_file():
            raise MedvarError(f"Cannot read {path}: " + ("it is no file." if path.exists() else "it does not exist."))
        if path.stat().st_size > MAX_BYTES:
            raise _too_large(path)
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error


def _check_pixels(path: Path, sides: Any, itemsize: int) -> None:
    if math.prod(sides) * itemsize > MAX_BYTES:
        raise _too_large(path)


def _too_large(path: Path) -> MedvarError:
    return MedvarError(
        f"{path} is larger than any image that medvar writes ({MAX_BYTES >> 20} MiB, unpacked); it was not opened."
    )
