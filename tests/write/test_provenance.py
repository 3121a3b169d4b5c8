from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medvar_engine.errors import MedvarError
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png
from medvar_engine.write.provenance import read_trace

MakeImage = Callable[..., OutputImage]


def plain_png(path: Path, text: str | None = None) -> Path:
    info = PngInfo()
    if text is not None:
        info.add_itxt("medvar", text)
    Image.new("L", (4, 4)).save(path, pnginfo=info)
    return path


def plain_nifti(path: Path, comment: bytes | None = None) -> Path:
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), dtype=np.int16), np.eye(4))
    if comment is not None:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, comment))
    nibabel.save(image, path)
    return path


def test_says_when_a_file_holds_no_trace(tmp_path: Path) -> None:
    """Somebody who opens any other image would see a traceback."""
    for path in (
        plain_png(tmp_path / "a.png"),
        plain_nifti(tmp_path / "a.nii"),
        plain_nifti(tmp_path / "b.nii.gz", b"scanned on a Tuesday"),
        plain_nifti(tmp_path / "c.nii.gz", b'["a", "list"]'),
    ):
        with pytest.raises(MedvarError, match="contains no MedVAR trace"):
            read_trace(path)


def test_says_when_a_trace_is_damaged(tmp_path: Path) -> None:
    """A stranger's file would crash the program."""
    for path in (
        plain_png(tmp_path / "a.png", "{"),
        plain_png(tmp_path / "b.png", '{"medvar_trace": 99}'),
        plain_nifti(tmp_path / "a.nii", b'{"trace": {"medvar_trace": 1, "images": []}}'),
    ):
        with pytest.raises(MedvarError, match=path.name):
            read_trace(path)


@pytest.mark.parametrize("name", ["a.png", "a.nii", "a.nii.gz"])
def test_says_when_a_file_is_cut_short(make_output_image: MakeImage, tmp_path: Path, name: str) -> None:
    """A broken download would crash the program at some of the places where it can break."""
    path = tmp_path / name
    write_png(path, make_output_image()) if name.endswith("png") else write_nifti(path, make_output_image())
    content = path.read_bytes()
    for length in (0, 1, 5, 10, 20, 40, 100, 200, 300, 360, 400, 500):
        path.write_bytes(content[: min(length, len(content) - 200)])
        with pytest.raises(MedvarError, match=name):
            read_trace(path)


def test_missing_files_are_reported(tmp_path: Path) -> None:
    """A mistyped name would be a traceback."""
    with pytest.raises(MedvarError, match="No such file"):
        read_trace(tmp_path / "a.png")
    with pytest.raises(MedvarError, match="directory"):
        read_trace(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(MedvarError, match="neither PNG, DICOM nor NIfTI"):
        read_trace(tmp_path / "a.txt")
    (tmp_path / "text.nii").write_text("hello" * 200)
    with pytest.raises(MedvarError, match="not a complete NIfTI"):
        read_trace(tmp_path / "text.nii")
