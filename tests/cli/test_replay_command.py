"""`medvar replay`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medvar_engine.errors import MedvarError
from medvar_engine.write.provenance import read_trace


@pytest.mark.parametrize(("kind", "ending"), [("png", "png"), ("png16", "png"), ("nifti", "nii.gz"), ("dicom", "dcm")])
def test_a_written_image_is_made_again(
    medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, kind: str, ending: str
) -> None:
    """Somebody handed an image could not check that it is what its file says."""
    made = medvar("generate", "--bundle", tiny_bundle, "--out", tmp_path, "--seed", 7, "--count", 2, "--format", kind)
    assert made.code == 0, made.err
    run = medvar("replay", tmp_path / f"seed8.{ending}", "--bundle", tiny_bundle)
    assert (run.code, run.out.strip().endswith("pixel for pixel")) == (0, True), run.err


def test_a_volume_is_made_again_slice_by_slice(medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    """A stack is a volume by default, and would pass for one that medvar did not write."""
    asked = ("--modality", "CT", "--region", "chest", "--plane", "axial", "--stack", 3)
    made = medvar("generate", "--bundle", tiny_bundle, "--out", tmp_path, *asked)
    assert made.code == 0, made.err
    (path,) = tmp_path.glob("*.nii.gz")
    run = medvar("replay", path, "--bundle", tiny_bundle)
    assert (run.code, run.out.strip().endswith("the same image, 3 slices, pixel for pixel")) == (0, True), run.err
    assert "stack       3 slices" in medvar("info", path).out
    volume = nibabel.load(path)
    voxels = np.asarray(volume.dataobj).copy()
    voxels[2, 3, 1] += 1
    nibabel.save(nibabel.Nifti1Image(voxels, volume.affine, volume.header), path)
    run = medvar("replay", path, "--bundle", tiny_bundle)
    assert (run.code, "1 pixels" in run.err) == (1, True), run.err
    with pytest.raises(MedvarError, match="stack of 3 slices"):
        read_trace(path)


def test_a_changed_image_is_reported(medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    """An image that was retouched would pass for the model's."""
    assert medvar("generate", "--bundle", tiny_bundle, "--out", tmp_path).code == 0
    path = tmp_path / "seed0.png"
    with Image.open(path) as image:
        pixels, text = np.asarray(image).copy(), PngInfo()
        text.add_itxt("medvar", image.info["medvar"])
    pixels[2, 3] ^= 64
    Image.fromarray(pixels).save(path, pnginfo=text)
    run = medvar("replay", path, "--bundle", tiny_bundle)
    assert run.code == 1
    assert "1 pixels" in run.err
    path.write_bytes(path.read_bytes()[:-60])
    run = medvar("replay", path, "--bundle", tiny_bundle)
    assert run.code == 1
    assert "seed0.png" in run.err


def test_another_bundle_is_reported(medvar: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    """Another model would make another image, and nobody would know why."""
    assert medvar("generate", "--bundle", tiny_bundle, "--out", tmp_path).code == 0
    run = medvar("replay", tmp_path / "seed0.png")
    assert run.code == 1
    assert "Open the bundle that made it" in run.err
