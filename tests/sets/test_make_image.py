"""One image from Python, and its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import open_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.request import Request, Sampling
from medvar_engine.sets.make_image import make_image
from medvar_engine.types import FloatArray
from medvar_engine.write.formats import save_image
from medvar_engine.write.provenance import read_trace

CHEST = Condition("CT", "chest", "axial")


def test_the_image_equals_that_of_the_generator(tiny_bundle: Path, tiny_onnx: OnnxBackend) -> None:
    """The easy way would give other images than the long one, and so other ones than the command line."""
    bundle = open_bundle(tiny_bundle)
    generator = Generator(tiny_onnx)
    for sampling in (None, Sampling(guidance=3.0, top_k=5)):
        image = make_image(bundle, CHEST, seed=3, sampling=sampling, device="cpu")
        generation = generator.finish(generator.start([Request(CHEST, 3, sampling or bundle.sampling)]))
        np.testing.assert_array_equal(image.pixels, generator.image(generation)[0])
        assert image.trace.request == generation.requests[0]
    assert (image.unit, image.values().min() >= -1000) == ("HU", True)


@pytest.mark.parametrize("name", ["a.png", "a.nii", "a.NII.GZ", "a.dcm"])
def test_it_is_saved_in_the_format_of_the_ending(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    """Whoever saves an image in a script would have to know which writer suits it; and could lose the trace."""
    image = make_image(open_bundle(tiny_bundle), CHEST, device="cpu")
    files = save_image(image, str(tmp_path / name))
    assert files[0] == tmp_path / name
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert read_trace(files[0]).pyramid == image.trace.pyramid


def test_another_ending_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    """The image would be lost in a file that nothing opens."""
    image = make_image(open_bundle(tiny_bundle), CHEST, device="cpu")
    with pytest.raises(MedvarError, match=r"must end in \.png"):
        save_image(image, tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_a_training_slice_is_withheld(
    tiny_bundle: Path, tmp_path: Path, gated: Callable[[Path, FloatArray], Path]
) -> None:
    """The easy way would be the way around the copy policy."""
    pixels = make_image(open_bundle(tiny_bundle), CHEST, seed=3, device="cpu").pixels
    knowing = open_bundle(gated(tmp_path / "knowing", pixels[None]))
    with pytest.raises(MedvarError, match=r"withheld.*another seed"):
        make_image(knowing, CHEST, seed=3, device="cpu")
    assert make_image(knowing, CHEST, seed=4, device="cpu").pixels.shape == (16, 16)


def test_unknown_labels_are_reported(tiny_bundle: Path) -> None:
    """A slip in a name would give an image of something else."""
    with pytest.raises(MedvarError, match="Did you mean 'chest'"):
        make_image(open_bundle(tiny_bundle), Condition(region="chst"), device="cpu")
