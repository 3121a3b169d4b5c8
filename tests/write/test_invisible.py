"""The invisible mark: found after what files go through, not found where it is not, and not seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from medvar_engine.cli.main import app
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Trace
from medvar_engine.types import FloatArray
from medvar_engine.write.burn_in import marked
from medvar_engine.write.compare import differing_pixels, grey_slices
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import ENDINGS, write_image
from medvar_engine.write.invisible import FOUND, add_mark, mark_score, threshold_of
from medvar_engine.write.marks import Marks
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import read_about_pixels

BOTH = Marks(burned_in=True, invisible=True)


def anatomy(seed: int, side: int = 128) -> FloatArray:
    """A smooth body with edges and some grain, in air."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    tissue = ndimage.gaussian_filter(rng.normal(size=(side, side)), 4)
    body = np.clip(tissue / tissue.std() * 0.4, -0.9, 1) + (tissue > 0) * 0.2 + rng.normal(0, 0.02, (side, side))
    return np.where(x**2 + y**2 < 0.7, np.clip(body, -1, 1), -1).astype(np.float32)


def grey(image: FloatArray) -> FloatArray:
    return np.rint((np.clip(image, -1, 1) + 1) * 127.5) / 127.5 - 1


def windowed_twice(image: FloatArray, seed: int) -> FloatArray:
    """PNG of 8 bits, DICOM of 12, shown in another window, and saved again."""
    rng = np.random.default_rng(seed)
    stored = np.rint((grey(image) + 1) / 2 * 4095) / 4095 * 2 - 1
    return grey((stored - rng.uniform(-0.2, 0.2)) / np.exp(rng.uniform(-0.3, 0.3)))


def test_the_mark_survives_round_trips() -> None:
    """Breaks for whoever asks whether an image is synthetic: a mark that is lost, or found in patients, misleads."""
    images = [anatomy(seed) for seed in range(40)]
    with_mark = [mark_score(windowed_twice(add_mark(image), i)) for i, image in enumerate(images)]
    without = [mark_score(windowed_twice(image, i)) for i, image in enumerate(images)]
    assert min(with_mark) > FOUND
    assert max(without) < FOUND
    assert np.std(without) < 1.5


def test_the_mark_is_invisible() -> None:
    """Breaks for measurements in the image."""
    for seed in range(3):
        image = anatomy(seed)
        difference = add_mark(image) - image
        assert 10 * np.log10(4 / np.mean(difference**2)) > 50  # dB
        assert np.abs(difference).max() < 3 / 127.5


@pytest.mark.parametrize("form", ENDINGS)
def test_files_contain_and_record_the_mark(make_trace: Callable[..., Trace], tmp_path: Path, form: str) -> None:
    """Breaks for `info --mark` and `replay`, in any format and together with the visible one."""
    plain = OutputImage(anatomy(3), make_trace(), 1.0, -160, 240, "HU")
    for name, marks in (("both", BOTH), ("none", Marks())):
        path = tmp_path / f"{name}{ENDINGS[form]}"
        write_image(path, form, marked(plain, marks), Study("some"), 1)
        assert (mark_score(*grey_slices(path)) > FOUND) == marks.invisible
        assert Marks.from_dict(read_about_pixels(path)) == marks
        assert differing_pixels(path, marked(plain, marks)) == 0


def test_unsuitable_images_are_refused_or_score_zero() -> None:
    """Breaks for odd files: a traceback, or a mark in an empty image."""
    with pytest.raises(MedvarError, match="32 pixels"):
        add_mark(np.zeros((16, 40), np.float32))
    for image in (np.zeros((64, 64)), np.zeros((5, 5)), np.zeros((0, 0)), np.full((64, 64), np.nan)):
        assert mark_score(image) == 0
    assert mark_score(np.eye(64)) < FOUND


def test_files_of_other_programs_are_searched(tmp_path: Path) -> None:
    """Breaks for images that lost all their metadata, for which the mark is there; and for what is no slice."""
    pixels = np.asarray((grey(add_mark(anatomy(5))) + 1) * 127.5, dtype=np.uint8)
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(tmp_path / "colour.png")
    assert mark_score(*grey_slices(tmp_path / "colour.png")) > FOUND
    with pytest.raises(MedvarError, match="Cannot read"):
        grey_slices(tmp_path / "absent.png")
    for name in ("text.png", "text.nii", "text.nii.gz"):
        (tmp_path / name).write_text("no image")
        with pytest.raises(MedvarError, match=name):
            grey_slices(tmp_path / name)


def test_every_slice_of_a_volume_is_searched(tmp_path: Path) -> None:
    """Breaks for the volume of a stack, some of whose slices another program may have replaced."""
    images = [anatomy(i) for i in range(3)]
    images[1] = add_mark(images[1])
    volume = nibabel.Nifti1Image(np.stack([image.T for image in images], axis=-1), np.eye(4))
    volume.to_filename(tmp_path / "volume.nii.gz")
    assert [mark_score(image) > FOUND for image in grey_slices(tmp_path / "volume.nii.gz")] == [False, True, False]
    assert "in 1 of 3 slices" in CliRunner().invoke(app, ["info", "--mark", str(tmp_path / "volume.nii.gz")]).output


def test_a_volume_is_not_found_by_chance_more_often_than_an_image() -> None:
    """One of the many slices of a patient's scan would sooner or later be called synthetic."""
    scores = np.random.default_rng(0).normal(size=(20_000, 100))
    alone, of_volumes = (scores > FOUND).mean(), (scores.max(1) > threshold_of(100)).mean()
    assert threshold_of(1) == pytest.approx(FOUND)
    assert of_volumes < 2 * alone
    assert 4 < threshold_of(100) < 4.5
