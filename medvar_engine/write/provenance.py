"""Provenance of images: written into every file and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import medvar_engine
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace, traces_from_json
from medvar_engine.storage import is_irregular
from medvar_engine.untrusted import plain_json
from medvar_engine.write.open_slice_file import open_dicom, open_nifti, open_png
from medvar_engine.write.output_image import OutputImage

SOFTWARE = f"napari-medvar {medvar_engine.__version__}"
STATEMENT = "Synthetic image made by a generative model. It shows no patient and is not for diagnosis."
RECONSTRUCTION = "Reconstruction of a real image by a generative model. It shows a patient and is not for diagnosis."
PNG_KEY = "medvar"  # keyword of the PNG text chunk that holds the trace
NIFTI_COMMENT = 6  # code of a NIfTI header extension in plain text
PNG_PIXELS_KEY = "medvar-pixels"  # keyword of the PNG text chunk that holds `about_pixels`
DICOM_GROUP, DICOM_CREATOR = 0x0099, "NAPARI-MEDVAR"
DICOM_TRACE, DICOM_PIXELS = 0x01, 0x02  # the private elements that hold the trace, and `about_pixels`
NEAR = "MEMORISED? It is closer to a training slice of the model than almost all slices of other patients are."
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


def provenance(image: OutputImage) -> dict[str, Any]:
    """Plain values for JSON: whether the image is synthetic, the meaning of its values, and its trace."""
    request = image.trace.request
    return {
        "synthetic": not image.reconstruction,
        "reconstruction": image.reconstruction,
        "statement": statement(image),
        "software": SOFTWARE,
        "model": image.trace.bundle_id,
        "condition": request.condition.to_dict(),
        "seed": request.seed,
        "low": image.low,
        "high": image.high,
        "unit": image.unit,
        "spacing_mm": image.spacing_mm,
        "pixels": about_pixels(image),
        "trace": json.loads(image.trace.to_json()),
    }


def about_pixels(image: OutputImage) -> dict[str, Any]:
    """Plain values for JSON: facts about the pixels that are not in the trace, such as copy risk and marks."""
    near = {} if image.copy_risk is None else {"nearness": image.copy_risk.to_dict()}
    return {**image.marks.to_dict(), **near}


def statement(image: OutputImage) -> str:
    """The statement for users: whether the image is synthetic, and whether it may be a copy."""
    near = image.copy_risk is not None and image.copy_risk.flagged
    return f"{origin(image)} {NEAR}" if near else origin(image)


def origin(image: OutputImage) -> str:
    """The origin of the image: synthetic, or a reconstruction of a real image."""
    return RECONSTRUCTION if image.reconstruction else STATEMENT


def read_trace(path: Path) -> Trace:
    """Read the trace of a PNG, NIfTI or DICOM file that medvar wrote.

    Raises `MedvarError` when the file cannot be read, has another format, or contains no trace.
    """
    traces = read_traces(path)
    if len(traces) > 1:
        raise MedvarError(f"{path} is a stack of {len(traces)} slices, but a file of one slice is expected.")
    return traces[0]


def read_traces(path: Path) -> list[Trace]:
    """Read the traces of all slices of a file that medvar wrote: many for the volume of a stack, otherwise one.

    Raises `MedvarError` when the file cannot be read, has another format, or contains no trace.
    """
    text = _read(path, PNG_KEY, DICOM_TRACE, "trace") or _read(path, PNG_KEY, DICOM_TRACE, "traces")
    if text is None:
        raise MedvarError(
            f"{path} contains no MedVAR trace: it was not written by medvar, or another program removed the trace."
        )
    try:
        traces = traces_from_json(text)
    except MedvarError as error:
        raise MedvarError(f"{path}: {error}") from error
    if not traces or not all(trace.pyramid.depth for trace in traces):
        raise MedvarError(f"{path}: its trace has no scales, so there is no image to make again.")
    return traces


def read_about_pixels(path: Path) -> dict[str, Any]:
    """Read the values of `about_pixels` from a file that medvar wrote; empty for files of older versions."""
    try:
        values = plain_json.loads(_read(path, PNG_PIXELS_KEY, DICOM_PIXELS, "pixels") or "{}")
    except (ValueError, RecursionError) as error:
        raise MedvarError(f"{path}: its metadata about pixels are damaged: {error}.") from error
    if not isinstance(values, dict):
        raise MedvarError(f"{path}: its metadata about pixels are damaged: {values!r}.")
    return values


def check_written(path: Path) -> None:
    """Raises `MedvarError` unless medvar wrote the image, the volume or the sidecar at ``path``."""
    if path.suffix == ".json":
        try:
            about = plain_json.read(path)
        except (OSError, ValueError, RecursionError):
            about = None
        found = isinstance(about, dict) and {"software", "statement", "synthetic"} <= about.keys()
    else:
        found = _read(path, PNG_KEY, DICOM_TRACE, "software") is not None
    if not found:
        raise MedvarError(f"{path} was not written by medvar.")


def _read(path: Path, png_key: str, dicom_element: int, nifti_key: str) -> str | None:
    """One of the JSON texts in a file; None if it is missing."""
    try:
        match kind_of(path):
            case "png":
                return _png_text(path, png_key)
            case "dicom":
                return _dicom_text(path, dicom_element)
            case _:
                return _nifti_text(path, nifti_key)
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error


def kind_of(path: Path) -> Literal["png", "dicom", "nifti"]:
    """The format of a file by its first bytes; NIfTI, which may be compressed, if it is neither PNG nor DICOM.

    DICOM without a preamble, as some programs write it, is known by its name.
    """
    if is_irregular(path) and not path.is_dir():  # opening a folder says itself that it is one
        raise OSError(None, "it is no file")
    with path.open("rb") as file:
        magic = file.read(132)
    if magic.startswith(_PNG_MAGIC):
        return "png"
    return "dicom" if magic.endswith(b"DICM") or path.suffix.lower() in _DICOM_SUFFIXES else "nifti"


def _png_text(path: Path, key: str) -> str | None:
    with open_png(path) as image:
        text = image.info.get(key)
    return text if isinstance(text, str) else None


def _dicom_text(path: Path, element: int) -> str | None:
    dataset = open_dicom(path)
    try:
        value = dataset.private_block(DICOM_GROUP, DICOM_CREATOR)[element].value
    except KeyError:
        return None  # written by another program
    except Exception as error:  # values are converted on access
        raise MedvarError(f"{path} is not a complete DICOM file: {error}.") from error
    # The VR is UT even if the file does not state it (implicit VR, or UN written by another program).
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.rstrip("\0 ")


def _nifti_text(path: Path, key: str) -> str | None:
    for extension in open_nifti(path).header.extensions:
        if extension.get_code() == NIFTI_COMMENT:
            try:
                return json.dumps(plain_json.loads(extension.text.rstrip("\0"))[key])
            except (ValueError, KeyError, TypeError):
                continue  # a comment of another program
    return None
