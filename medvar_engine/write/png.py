"""Pictures as PNG: 8 bits of gray to look at, 16 to measure in, and the trace to make them again."""

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
from medvar_engine.write.picture import Picture
from medvar_engine.write.provenance import PNG_KEY, PNG_PIXELS_KEY, SOFTWARE, STATEMENT, about_pixels, statement

_MM_PER_INCH = 25.4
_WHITE_16 = 65535


def write_png(path: Path, picture: Picture) -> Path:
    """Write ``.png`` of 8 bits and give its path. Black is `Picture.low`, white `Picture.high`; the spacing is the dpi.

    Raises `MedvarError` for another ending or when the file cannot be written; one that was there is then untouched.
    """
    return _save_picture(path, Image.fromarray(picture.grey()), picture, {})


def write_png16(path: Path, picture: Picture) -> Path:
    """As `write_png`, with 16 bits of gray: every value of CT keeps its HU, which the text ``Values`` tells."""
    image = Image.fromarray(np.rint(picture.share() * _WHITE_16).astype(np.uint16))
    values = f"0 is {picture.low:g} {picture.unit}, {_WHITE_16} is {picture.high:g} {picture.unit}"
    return _save_picture(path, image, picture, {"Values": values})


def save_png(
    path: Path,
    image: Image.Image,
    trace: Trace,
    spacing_mm: float | None = None,
    text: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write any image made from ``trace`` as PNG, marked as synthetic; ``text`` is told in chunks of its own."""
    if path.suffix.lower() != ".png":
        raise MedvarError(f"{path} must end in .png.")
    chunks = PngInfo()
    for key, value in {"Synthetic": "yes", "Software": SOFTWARE, "Description": STATEMENT, **text}.items():
        chunks.add_text(key, value)
    # Not compressed: readers cap what they inflate, and a long history would pass the cap.
    chunks.add_itxt(PNG_KEY, trace.to_json())
    buffer = BytesIO()
    dpi = {} if spacing_mm is None else {"dpi": (_MM_PER_INCH / spacing_mm,) * 2}
    image.save(buffer, "PNG", pnginfo=chunks, **dpi)
    write_files({path: buffer.getvalue()})
    return path


def _save_picture(path: Path, image: Image.Image, picture: Picture, text: Mapping[str, str]) -> Path:
    real = {"Synthetic": "no, reconstruction of a real image"} if picture.reconstruction else {}
    about = {**real, "Description": statement(picture), PNG_PIXELS_KEY: json.dumps(about_pixels(picture)), **text}
    return save_png(path, image, picture.trace, picture.spacing_mm, about)
