"""SYNTHETIC in the pixels: readable, beside the anatomy, told of in the file, and the same when made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.types import FloatArray
from medvar_engine.write.burn_in import burn_in
from medvar_engine.write.compare import differing_pixels
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import ENDINGS, write_image
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import read_about_pixels, read_trace

MakeTrace = Callable[..., Trace]


def body(top: int, bottom: int, left: int = 0, right: int = 128) -> FloatArray:
    """Bright between rows and columns, air elsewhere."""
    pixels = np.full((128, 128), -1, np.float32)
    pixels[top:bottom, left:right] = 0.2
    return pixels


@pytest.mark.parametrize(
    ("pixels", "rows"),
    [(body(0, 110), slice(117, 128)), (body(20, 128), slice(0, 11)), (body(60, 128, 70), slice(117, 128))],
)
def test_the_mark_lies_beside_the_anatomy(make_trace: MakeTrace, pixels: FloatArray, rows: slice) -> None:
    """Breaks for readers of the image: the mark would hide what they look at."""
    made = burn_in(OutputImage(pixels, make_trace(), 1.0, -160, 240, "HU"))
    changed = made.pixels != pixels
    assert changed.any()
    assert (pixels[changed] == -1).all()
    assert not np.delete(changed, np.r_[rows], axis=0).any()
    assert made.marks.burned_in
    assert made.pixels.max() == 1


def test_a_full_image_is_marked_too(make_trace: MakeTrace) -> None:
    """Breaks for images without air, which would go unmarked."""
    made = burn_in(OutputImage(np.full((256, 300), 0.9, np.float32), make_trace(), 1.0, 0, 1, "arbitrary"))
    box = made.pixels != np.float32(0.9)
    assert box.sum() == 22 * 114  # letters and box, twice as large
    assert set(np.unique(made.pixels[box])) == {-1, 1}


def test_a_too_small_image_is_refused(make_trace: MakeTrace) -> None:
    """Breaks for tiny images, of which nothing would be left."""
    with pytest.raises(MedvarError, match="57×11 pixels"):
        burn_in(OutputImage(np.zeros((16, 16), np.float32), make_trace(), 1.0, 0, 1, "arbitrary"))


@pytest.mark.parametrize("form", ENDINGS)
def test_every_format_records_the_mark(make_trace: MakeTrace, tmp_path: Path, form: str) -> None:
    """Breaks for `replay`, which would call every marked file a changed one."""
    rng = np.random.default_rng(0)
    plain = OutputImage(rng.uniform(-1, 1, (96, 96)).astype(np.float32), make_trace(), 1.0, -160, 240, "HU")
    path = tmp_path / f"marked{ENDINGS[form]}"
    write_image(path, form, burn_in(plain), Study("some"), 1)
    assert read_about_pixels(path) == {"burned_in": True, "invisible_mark": False}
    assert read_trace(path).to_json() == plain.trace.to_json()
    assert differing_pixels(path, burn_in(plain)) == 0
    assert differing_pixels(path, plain) > 100
    other = tmp_path / f"plain{ENDINGS[form]}"
    write_image(other, form, plain, Study("some"), 1)
    assert read_about_pixels(other) == {"burned_in": False, "invisible_mark": False}


def test_dicom_says_that_pixels_are_annotated(make_trace: MakeTrace, tmp_path: Path) -> None:
    """Breaks for archives: two images of one UID, and software that trusts Burned In Annotation."""
    plain = OutputImage(body(0, 100), make_trace(), 1.0, -160, 240, "HU")
    study = Study("some")
    found = []
    for name, image in (("a", plain), ("b", burn_in(plain))):
        write_image(tmp_path / f"{name}.dcm", "dicom", image, study, 1)
        found.append(pydicom.dcmread(tmp_path / f"{name}.dcm"))
    assert [dataset.BurnedInAnnotation for dataset in found] == ["NO", "YES"]
    assert found[0].SOPInstanceUID != found[1].SOPInstanceUID


def test_files_without_a_record_have_no_marks(tmp_path: Path) -> None:
    """Breaks for files of an older version, and for damaged ones, on which a traceback would follow."""
    Image.new("L", (4, 4)).save(tmp_path / "old.png")
    assert read_about_pixels(tmp_path / "old.png") == {}
    for text in ("{", json.dumps([1])):
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("medvar-pixels", text)
        Image.new("L", (4, 4)).save(tmp_path / "bad.png", pnginfo=info)
        with pytest.raises(MedvarError, match=r"bad\.png.*damaged"):
            read_about_pixels(tmp_path / "bad.png")
