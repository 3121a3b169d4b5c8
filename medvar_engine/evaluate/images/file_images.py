"""Reads pixels in [-1, 1] from files of `medvar_engine.write`: PNG, NIfTI and DICOM with one slice each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from medvar_engine.encoders.image_source import Indices
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.mask_source import mask_beside
from medvar_engine.types import FloatArray
from medvar_engine.value_range import ValueRange
from medvar_engine.write.compare import read_pixels
from medvar_engine.write.open_slice_file import open_dicom, open_nifti
from medvar_engine.write.provenance import kind_of

ENDINGS = {".png": "PNG", ".nii": "NIfTI", ".nii.gz": "NIfTI", ".dcm": "DICOM", ".dicom": "DICOM"}
_LOOKED_AT_ONLY = "-scales.png"  # contact sheets of scales, which are skipped


class FileImages:
    """Files with one slice each, all of the same size."""

    def __init__(self, files: Sequence[str], digest: str) -> None:
        """``digest`` is the digest of the content of all files."""
        self._files, self.digest = files, digest

    def __len__(self) -> int:
        return len(self._files)

    def batch(self, indices: Indices) -> FloatArray:
        """See `Images`. Raises `MedvarError` when a file can no longer be read."""
        return np.stack([read_slice(Path(self._files[int(i)])) for i in indices])


def find_image_files(folder: Path) -> list[str]:
    """The sorted image files in and below a folder, without masks, hidden files and contact sheets of scales.

    Raises `MedvarError` for files of several formats, because the same image may then occur twice.
    """
    found: dict[str, list[str]] = {}
    for path in folder.rglob("*"):
        name = path.name.lower()
        kind = next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), None)
        if kind and not name.startswith(".") and not name.endswith(_LOOKED_AT_ONLY) and path.is_file():
            found.setdefault(kind, []).append(str(path))
    if len(found) > 1:
        formats = ", ".join(
            f"{len(files)} {kind} files (such as {min(files)})" for kind, files in sorted(found.items())
        )
        raise MedvarError(f"{folder} holds images of several formats: {formats}. Evaluate each format separately.")
    files = next(iter(found.values()), [])
    masks = {str(mask_beside(Path(file))) for file in files}
    return sorted(file for file in files if file not in masks)


def check_image_files(files: Iterable[str]) -> str:
    """Read every file once, one at a time, and return the digest of their content.

    Raises `MedvarError` for the first file that cannot be read or has another size than those before.
    """
    content, first = hashlib.sha256(), None
    for file in files:
        image = read_slice(Path(file))
        first = first or (image.shape, file)
        if image.shape != first[0]:
            size, other = ("×".join(map(str, shape)) for shape in (image.shape, first[0]))
            raise MedvarError(
                f"The images are of several sizes: {file} has {size} pixels, but {first[1]} has {other}. "
                "Evaluate each size separately."
            )
        content.update(hashlib.sha256(image.tobytes()).digest())
    return content.hexdigest()


def read_slice(file: Path) -> FloatArray:
    """The pixels ``(H, W)`` in [-1, 1] before writing, up to the rounding of the file format.

    Raises `MedvarError` when the file cannot be read, or does not record the values of black and white.
    """
    try:
        kind = kind_of(file)
    except OSError as error:
        raise MedvarError(f"Cannot read {file}: {error.strerror or error}.") from error
    pixels = read_pixels(file, kind)
    if kind == "nifti":
        pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        pixels = pixels.T
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "uif":
        raise MedvarError(f"{file} must hold one grey slice, but its array has the shape {pixels.shape}.")
    match kind:
        case "png":
            low, high = 0.0, float(np.iinfo(pixels.dtype.name).max)
        case "dicom":
            pixels, low, high = _rescaled(file, pixels)
        case _:
            low, high = _nifti_range(file)
    if not np.isfinite(pixels).all():
        raise MedvarError(f"{file} contains values that are not finite.")
    if not low < high:
        raise MedvarError(
            f"{file} does not record valid values of black and white: {low:g} to {high:g}. Only files written by "
            "medvar can be evaluated."
        )
    return ValueRange(low, high, "arbitrary").to_image(pixels.astype(np.float32))


def _nifti_range(file: Path) -> tuple[float, float]:
    """The values of black and white that `write_nifti` recorded."""
    header = open_nifti(file).header
    return float(header["cal_min"]), float(header["cal_max"])


def _rescaled(file: Path, stored: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Rescaled values (PS3.3 C.7.6.16.2.9), and both ends of the window (C.11.2.1.2), which spans its width - 1."""
    dataset = open_dicom(file)
    try:
        values = stored * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
        centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    except (AttributeError, TypeError, ValueError) as error:
        raise MedvarError(
            f"{file} has no window (WindowCenter, WindowWidth) that defines the values of black and white ({error})."
        ) from error
    low = centre - width / 2
    return values, low, low + width - 1
