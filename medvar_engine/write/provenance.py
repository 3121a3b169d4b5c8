"""What is said of a picture in every file that holds it, and how it is read back."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, Literal

import medvar_engine
from medvar_engine.errors import MedvarError
from medvar_engine.trace import Trace
from medvar_engine.write.picture import Picture

SOFTWARE = f"napari-medvar {medvar_engine.__version__}"
STATEMENT = "Synthetic image made by a generative model. It shows no patient and is not for diagnosis."
PNG_KEY = "medvar"  # keyword of the PNG text chunk that holds the trace
NIFTI_COMMENT = 6  # code of a NIfTI header extension in plain text
DICOM_GROUP, DICOM_CREATOR, DICOM_TRACE = 0x0099, "NAPARI-MEDVAR", 0x01  # the private element that holds the trace
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def provenance(picture: Picture) -> dict[str, Any]:
    """Plain values, for JSON: that the picture is synthetic, what its numbers mean, and how to make it again."""
    request = picture.trace.request
    return {
        "synthetic": True,
        "statement": STATEMENT,
        "software": SOFTWARE,
        "model": picture.trace.model,
        "condition": request.condition.to_dict(),
        "seed": request.seed,
        "low": picture.low,
        "high": picture.high,
        "unit": picture.unit,
        "spacing_mm": picture.spacing_mm,
        "trace": json.loads(picture.trace.to_json()),
    }


def read_trace(path: Path) -> Trace:
    """The trace of a PNG, NIfTI or DICOM file that this room wrote.

    Raises `MedvarError` when the file cannot be read, is of another kind, or holds no trace.
    """
    try:
        read = {"png": _png_text, "dicom": _dicom_text, "nifti": _nifti_text}[kind_of(path)]
        text = read(path)
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error
    if text is None:
        raise MedvarError(f"{path} holds no MedVAR trace: it was not written by medvar, or lost it in another program.")
    try:
        return Trace.from_json(text)
    except MedvarError as error:
        raise MedvarError(f"{path}: {error}") from error


def kind_of(path: Path) -> Literal["png", "dicom", "nifti"]:
    """What a file's first bytes say that it is; NIfTI, which may be packed, when they say neither of the others."""
    with path.open("rb") as file:
        magic = file.read(132)
    if magic.startswith(_PNG_MAGIC):
        return "png"
    return "dicom" if magic.endswith(b"DICM") else "nifti"


def _png_text(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:  # reads the chunks before the pixels, not the pixels
            return image.info.get(PNG_KEY)
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MedvarError(f"{path} is a damaged PNG: {error}.") from error


def _dicom_text(path: Path) -> str | None:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        return str(dataset.private_block(DICOM_GROUP, DICOM_CREATOR)[DICOM_TRACE].value)
    except KeyError:
        return None  # somebody else's
    except (InvalidDicomError, EOFError, ValueError, TypeError, NotImplementedError) as error:
        raise MedvarError(f"{path} is not a whole DICOM file: {error}.") from error


def _nifti_text(path: Path) -> str | None:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise MedvarError(f"{path} is neither PNG, DICOM nor NIfTI (.nii, .nii.gz), so it holds no MedVAR trace.")
    try:
        extensions = nibabel.Nifti1Image.from_filename(path).header.extensions
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, EOFError, zlib.error) as error:
        raise MedvarError(f"{path} is not a whole NIfTI file: {error}.") from error
    for extension in extensions:
        if extension.get_code() == NIFTI_COMMENT:
            try:
                return json.dumps(json.loads(extension.text.rstrip("\0"))["trace"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # somebody else's comment
    return None
