from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.write.contact_sheet import contact_sheet, scale_labels, write_contact_sheet
from medvar_engine.write.provenance import read_trace


def test_every_preview_is_there_with_its_caption_and_the_mark() -> None:
    """`--show-scales` would leave out scales, or somebody could pass the sheet on as real."""
    labels = scale_labels(ScaleSchedule((1, 2, 3, 4, 5)))
    assert labels[3] == "scale 3 · 4×4"
    levels = [-1.0, -0.5, 0.0, 0.5, 1.0]
    sheet = np.asarray(contact_sheet([np.full((100, 100), v, dtype=np.float32) for v in levels], labels))
    for level in levels[1:]:
        grey = round((level + 1) * 127.5)
        assert (sheet == grey).sum() >= 100 * 100, level
    assert (sheet[:20] > 0).any()  # the mark
    assert not (sheet[20:28] > 0).any()
    bare = np.asarray(contact_sheet([np.full((100, 100), -1, dtype=np.float32)], [""]))
    marked = np.asarray(contact_sheet([np.full((100, 100), -1, dtype=np.float32)], ["scale 0"]))
    assert (marked > 0).sum() > (bare > 0).sum() > 0


def test_small_previews_are_enlarged_without_blur() -> None:
    """The captions of a 16×16 model would run into one another."""
    checks = np.indices((16, 16)).sum(0) % 2 * 2.0 - 1
    sheet = np.asarray(contact_sheet([checks.astype(np.float32)], ["scale 0 · 1×1"]))
    assert sheet.shape[1] >= 96
    tile = sheet[28 : 28 + 96, 8 : 8 + 96]
    assert set(np.unique(tile)) == {0, 255}


def test_is_written_with_the_trace(make_trace: Callable[..., Trace], tmp_path: Path) -> None:
    """A sheet could not be made again."""
    trace = make_trace()
    path = write_contact_sheet(tmp_path / "a.png", [np.zeros((8, 8), dtype=np.float32)], ["scale 0"], trace)
    assert read_trace(path).to_json() == trace.to_json()
    with Image.open(path) as image:
        assert image.info["Synthetic"] == "yes"


def test_says_what_does_not_fit() -> None:
    """A wrong call would draw captions under the wrong images."""
    one, other = np.zeros((8, 8), dtype=np.float32), np.zeros((9, 9), dtype=np.float32)
    for previews, labels, message in (
        ([], [], "one label per preview"),
        ([one], ["a", "b"], "one label per preview"),
        ([one, other], ["a", "b"], "one size"),
        ([np.zeros((8, 8, 3), dtype=np.float32)], ["a"], "grey"),
    ):
        with pytest.raises(MedvarError, match=message):
            contact_sheet(previews, labels)
