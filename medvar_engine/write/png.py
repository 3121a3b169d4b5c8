"""Pictures as PNG: 8 bits of gray to look at, 16 to measure in, and the trace to make them again."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medvar_engine.errors import MedvarError
from medvar_engine.trace import Trace
from medvar_engine.write.files import write_files
from medvar_engine.write.picture import Picture
from medvar_engine.write.provenance import PNG_KEY, SOFTWARE, STATEMENT

_MM_PER_INCH = 25.4
_WHITE_16 = 65535


def write_png(path: Path, picture: Picture) -> Path:
    """Write ``.png`` of 8 bits and give its path. Black is `Picture.low`, white `Picture.high`; the spacing is the dpi.

    Raises `MedvarError` for another ending or when the file cannot be written; one that was there is then untouched.
    """
    return save_png(path, Image.fromarray(picture.gray()), picture.trace, picture.spacing_mm)


def write_png16(path: Path, picture: Picture) -> Path:
    """As `write_png`, with 16 bits of gray: every value of CT keeps its HU, which the text ``Values`` tells."""
    image = Image.fromarray(np.rint(picture.share() * _WHITE_16).astype(np.uint16))
    values = f"0 is {picture.low:g} {picture.unit}, {_WHITE_16} is {picture.high:g} {picture.unit}"
    return save_png(path, image, picture.trace, picture.spacing_mm, values)


def save_png(
    path: Path, image: Image.Image, trace: Trace, spacing_mm: float | None = None, values: str | None = None
) -> Path:
    """Write any image made from ``trace`` as PNG, marked as synthetic; ``values`` says what its numbers mean."""
    if path.suffix.lower() != ".png":
        raise MedvarError(f"{path} must end in .png.")
    text = PngInfo()
    text.add_text("Synthetic", "yes")
    text.add_text("Software", SOFTWARE)
    text.add_text("Description", STATEMENT)
    if values:
        text.add_text("Values", values)
    # Not compressed: readers cap what they inflate, and a long history would pass the cap.
    text.add_itxt(PNG_KEY, trace.to_json())
    buffer = BytesIO()
    dpi = {} if spacing_mm is None else {"dpi": (_MM_PER_INCH / spacing_mm,) * 2}
    image.save(buffer, "PNG", pnginfo=text, **dpi)
    write_files({path: buffer.getvalue()})
    return path
