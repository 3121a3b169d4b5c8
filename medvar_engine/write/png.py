"""Writes images as PNG, with 8 bits for viewing or 16 bits for measurements, and with the trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.storage import write_files
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import PNG_KEY, PNG_PIXELS_KEY, SOFTWARE, STATEMENT, about_pixels, statement

_MM_PER_INCH = 25.4
_WHITE_16 = 65535


def write_png(path: Path, image: OutputImage) -> Path:
    """Write an 8-bit ``.png`` and return its path.

    Black is `OutputImage.low` and white is `OutputImage.high`; the resolution (dpi) gives the pixel spacing. Raises
    `MedvarError` for another ending or when the file cannot be written; an existing file is then unchanged.
    """
    return _save(path, Image.fromarray(image.grey()), image, {})


def write_png16(path: Path, image: OutputImage) -> Path:
    """Like `write_png`, with 16 bits: CT keeps exact HU, and the text ``Values`` states the scale."""
    grey = Image.fromarray(np.rint(image.share() * _WHITE_16).astype(np.uint16))
    values = f"0 is {image.low:g} {image.unit}, {_WHITE_16} is {image.high:g} {image.unit}"
    return _save(path, grey, image, {"Values": values})


def save_png(
    path: Path,
    image: Image.Image,
    trace: Trace,
    spacing_mm: float | None = None,
    text: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write any image made from ``trace`` as PNG, marked as synthetic, with ``text`` as additional text chunks."""
    if path.suffix.lower() != ".png":
        raise MedvarError(f"{path} must end in .png.")
    chunks = PngInfo()
    for key, value in {"Synthetic": "yes", "Software": SOFTWARE, "Description": STATEMENT, **text}.items():
        chunks.add_text(key, value)
    # Not compressed, because readers limit inflated text, and a long history would exceed the limit.
    chunks.add_itxt(PNG_KEY, trace.to_json())
    buffer = BytesIO()
    dpi = {} if spacing_mm is None else {"dpi": (_MM_PER_INCH / spacing_mm,) * 2}
    image.save(buffer, "PNG", pnginfo=chunks, **dpi)
    write_files({path: buffer.getvalue()})
    return path


def _save(path: Path, grey: Image.Image, image: OutputImage, text: Mapping[str, str]) -> Path:
    real = {"Synthetic": "no, reconstruction of a real image"} if image.reconstruction else {}
    about = {**real, "Description": statement(image), PNG_PIXELS_KEY: json.dumps(about_pixels(image)), **text}
    return save_png(path, grey, image.trace, image.spacing_mm, about)
