"""A contact sheet: all previews of an image side by side, from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray
from medvar_engine.value_range import grey_levels
from medvar_engine.write.png import save_png

_GAP = 8  # pixels between tiles
_CAPTION = 20  # height of a caption, pixels
_TEXT = 13  # size of its letters
_MIN_TILE = 96  # smaller previews are enlarged to this width, so that captions fit
_MARK = "SYNTHETIC"


def scale_labels(schedule: ScaleSchedule) -> list[str]:
    """A caption for each scale, e.g. ``scale 3 · 4×4``."""
    return [f"scale {k} · {side}×{side}" for k, side in enumerate(schedule)]


def contact_sheet(previews: Sequence[FloatArray], labels: Sequence[str]) -> Image.Image:
    """Previews ``(H, W)`` in [-1, 1], all of one size, as tiles over their captions, under the mark SYNTHETIC.

    Raises `MedvarError` when there is no preview, when sizes differ, or when the number of labels is wrong.
    """
    if not previews or len(previews) != len(labels):
        raise MedvarError(
            f"A contact sheet needs one label per preview, but has {len(previews)} previews and {len(labels)} labels."
        )
    shapes = {preview.shape for preview in previews}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise MedvarError(
            f"The previews of a contact sheet must be grey and of one size, but their shapes are {sorted(shapes)}."
        )
    height, width = previews[0].shape
    zoom = max(1, math.ceil(_MIN_TILE / width))
    height, width = height * zoom, width * zoom
    columns = math.ceil(math.sqrt(len(previews)))
    rows = math.ceil(len(previews) / columns)
    sheet = Image.new("L", (columns * (width + _GAP) + _GAP, rows * (height + _CAPTION + _GAP) + _CAPTION + _GAP))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    pen.text((sheet.width // 2, _CAPTION // 2 + 2), _MARK, fill=255, font=font, anchor="mm")
    for i, (preview, label) in enumerate(zip(previews, labels, strict=True)):
        row, column = divmod(i, columns)
        x, y = _GAP + column * (width + _GAP), _CAPTION + _GAP + row * (height + _CAPTION + _GAP)
        sheet.paste(Image.fromarray(grey_levels(preview)).resize((width, height), Image.Resampling.NEAREST), (x, y))
        caption = label.replace("×", "x")  # Pillow's own font lacks ×
        pen.text((x, y + height + _CAPTION // 2), caption, fill=200, font=font, anchor="lm")
    return sheet


def write_contact_sheet(path: Path, previews: Sequence[FloatArray], labels: Sequence[str], trace: Trace) -> Path:
    """Write a contact sheet as ``.png`` with the trace in it, and return its path."""
    return save_png(path, contact_sheet(previews, labels), trace)
