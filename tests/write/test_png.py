from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Resample, Trace
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png, write_png16
from medvar_engine.write.provenance import read_trace

MakeImage = Callable[..., OutputImage]


def test_black_is_low_and_white_is_high(make_output_image: MakeImage, tmp_path: Path) -> None:
    """The image would be too dark, too bright, turned over or lying on its side."""
    pixels = np.array([[-1, 0, 1], [-5, 5, 0.5]], dtype=np.float32)
    path = write_png(tmp_path / "a.png", make_output_image(pixels=pixels))
    with Image.open(path) as image:
        assert image.mode == "L"
        assert np.asarray(image).tolist() == [[0, 128, 255], [0, 255, 191]]


def test_says_that_it_is_synthetic(make_output_image: MakeImage, tmp_path: Path) -> None:
    """A made image could be taken for a patient's."""
    with Image.open(write_png(tmp_path / "a.png", make_output_image(spacing_mm=0.5))) as image:
        assert image.info["Synthetic"] == "yes"
        assert "no patient" in image.info["Description"]
        assert image.info["dpi"] == pytest.approx((50.8, 50.8), abs=0.01)
    with Image.open(write_png(tmp_path / "a.png", make_output_image(spacing_mm=None))) as image:
        assert "dpi" not in image.info


def test_can_be_made_again_from_its_file(
    make_output_image: MakeImage, make_trace: Callable[..., Trace], tmp_path: Path
) -> None:
    """An image without its trace is a dead end: no resampling, no proof of how it was made."""
    trace = make_trace(edit=Resample(1, np.eye(5, dtype=bool)), parent=make_trace(seed=1))
    path = write_png(tmp_path / "ä image.PNG", make_output_image(trace=trace))
    assert read_trace(path).to_json() == trace.to_json()


def test_a_long_history_can_be_read_back(
    make_output_image: MakeImage, make_trace: Callable[..., Trace], tmp_path: Path
) -> None:
    """After an afternoon's work on one image, its file could be written but not read."""
    trace = make_trace((1, 2, 3, 4, 5, 6))
    for seed in range(900):
        trace = make_trace((1, 2, 3, 4, 5, 6), seed=seed, edit=Resample(1), parent=trace)
    path = write_png(tmp_path / "a.png", make_output_image(trace=trace))
    assert path.stat().st_size > 2**20  # beyond what readers inflate
    assert read_trace(path).to_json() == trace.to_json()


def test_the_same_image_is_the_same_file(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Reproducing a figure would change files that did not change."""
    one, two = (write_png(tmp_path / name, make_output_image()) for name in ("a.png", "b.png"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pixels": np.zeros((2, 2, 3), dtype=np.float32)}, "one grey slice"),
        ({"pixels": np.zeros((0, 2), dtype=np.float32)}, "one grey slice"),
        ({"pixels": np.full((2, 2), np.nan, dtype=np.float32)}, "finite"),
        ({"low": 3.0, "high": 3.0}, "low must be below high"),
        ({"spacing_mm": 0.0}, "above 0 mm"),
    ],
)
def test_invalid_images_are_refused(make_output_image: MakeImage, values: dict[str, object], message: str) -> None:
    """Rubbish would be written with a clean label."""
    with pytest.raises(MedvarError, match=message):
        make_output_image(**values)


def test_refuses_another_ending(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Somebody who asks for a JPEG would get a PNG by that name."""
    with pytest.raises(MedvarError, match=r"\.png"):
        write_png(tmp_path / "a.jpg", make_output_image())
    assert list(tmp_path.iterdir()) == []


def test_16_bits_keep_hounsfield_units(make_output_image: MakeImage, tmp_path: Path) -> None:
    """Who measures in PNG files would be off by several HU, or not know what the numbers mean."""
    path = write_png16(tmp_path / "a.png", make_output_image())
    with Image.open(path) as image:
        values = np.asarray(image).astype(np.float64)
        assert image.info["Values"] == "0 is -1000 HU, 65535 is 400 HU"
    expected = np.linspace(-1000, 400, 24).reshape(6, 4)
    np.testing.assert_allclose(-1000 + values / 65535 * 1400, expected, atol=0.02)
    assert read_trace(path).to_json() == make_output_image().trace.to_json()
