"""Masks that were written come back as they were, with their structures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.masks.structures import structures_of
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import ENDINGS, write_image
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.written_mask import read_written_mask

NAMES = ("liver", "spleen", "aorta")


def masked_image(make_trace: Callable[..., Trace], mask: np.ndarray) -> OutputImage:
    pixels = np.random.default_rng(0).uniform(-1, 1, mask.shape).astype(np.float32)
    trace = make_trace(condition=Condition("CT", "abdomen", "axial"))
    return OutputImage(pixels, trace, 1.0, -160.0, 240.0, "HU", mask=mask, structures=structures_of(NAMES))


@pytest.mark.parametrize("form", ["png", "nifti", "dicom"])
@pytest.mark.parametrize("values", [(0, 1, 3), (0,), (2,)])
def test_a_mask_comes_back(
    make_trace: Callable[..., Trace], tmp_path: Path, form: str, values: tuple[int, ...]
) -> None:
    """Turned, or with names of other values; one of DICOM lacks frames of structures that it does not show."""
    mask = np.random.default_rng(1).choice(values, (9, 9)).astype(np.uint8)
    *_, file = write_image(tmp_path / f"one{ENDINGS[form]}", form, masked_image(make_trace, mask), Study("test"), 1)
    found, structures = read_written_mask(file)
    np.testing.assert_array_equal(found, mask)
    assert tuple(one.name for one in structures) == NAMES


@pytest.mark.parametrize("form", ["png", "nifti", "dicom"])
def test_an_image_is_not_a_mask(make_trace: Callable[..., Trace], tmp_path: Path, form: str) -> None:
    """Grey values would be taken for organs."""
    image, *_ = write_image(
        tmp_path / f"one{ENDINGS[form]}", form, masked_image(make_trace, np.ones((9, 9), np.uint8)), Study("test"), 1
    )
    with pytest.raises(MedvarError, match="no mask that medvar wrote"):
        read_written_mask(image)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """One sentence for each."""
    Image.new("P", (4, 4)).save(tmp_path / "foreign.png")
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b")
    for name in ("foreign.png", "cut.nii.gz", "none.dcm"):
        with pytest.raises(MedvarError):
            read_written_mask(tmp_path / name)
