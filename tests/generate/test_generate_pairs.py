"""Images with their masks: drawn together, to a given mask, edited together, in torch and as a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_pairs import LABELS, MASK_SCALES, make_pairs

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.replay import replay
from medvar_engine.generate.trace import Trace
from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.request import Request
from medvar_export.from_bundle import read_weights

Networks = tuple[ResolutionTokenizer, Transformer]
CT = Condition("CT")


@pytest.fixture(scope="module")
def generator(pair_bundle: Bundle) -> Generator:
    return Generator(OnnxBackend(pair_bundle, device="cpu"))


def given(count: int = 2) -> np.ndarray:
    return make_pairs(count, 7)[:, 1].astype(np.uint8)


def requests(count: int, first: int = 0) -> list[Request]:
    return [Request(CT, first + i) for i in range(count)]


def test_the_bundle_lists_its_structures(pair_bundle: Bundle, generator: Generator) -> None:
    """Numbers without names are no masks."""
    assert [(one.name, one.colour) for one in pair_bundle.structures] == [("square", "#ff0000"), ("bar", "#0000ff")]
    assert generator.backend.info.mask_scales == MASK_SCALES
    assert pair_bundle.parity["masks_agreeing"] > 0.99


def test_the_bundle_is_the_model(pair_bundle: Bundle, pair_networks: Networks, generator: Generator) -> None:
    """What is trained would not be what is drawn; and weights read back from a bundle are the same again."""
    torch = TorchBackend(*pair_networks, LABELS, bundle_id=pair_bundle.bundle_id)
    again = TorchBackend(*read_weights(pair_bundle), LABELS)
    pairs = make_pairs(3, 5)
    for backend in (generator.backend, again):
        for a, b in zip(backend.encode(pairs), torch.encode(pairs), strict=True):
            assert (a == b).mean() > 0.98
    made = [Generator(one).finish(Generator(one).start(requests(2))) for one in (generator.backend, torch)]
    np.testing.assert_array_equal(made[0].pyramid.sequence, made[1].pyramid.sequence)
    images, masks = zip(*(Generator(one).pairs(made[0]) for one in (generator.backend, torch)), strict=True)
    np.testing.assert_allclose(images[0], images[1], atol=1e-3)
    np.testing.assert_array_equal(masks[0], masks[1])


def test_an_image_comes_with_its_mask(generator: Generator) -> None:
    """At every scale; and the same seed gives the same pair whatever else is in the batch."""
    made = generator.finish(generator.start(requests(3)))
    images, masks = generator.pairs(made)
    np.testing.assert_array_equal(images, generator.image(made))
    assert masks.dtype == np.uint8
    assert masks.shape == images.shape
    alone = generator.finish(generator.start(requests(1, 2)))
    np.testing.assert_array_equal(generator.pairs(alone)[1][0], masks[2])
    previews = [generator.pairs(made, k)[1] for k in range(made.depth)]
    np.testing.assert_array_equal(previews[MASK_SCALES[0] - 1], previews[0])  # scales of images leave the mask alone
    assert not np.array_equal(previews[MASK_SCALES[0]], previews[0])


def test_a_given_mask_stays_unchanged(generator: Generator) -> None:
    """The mask that was painted is the mask of the image; other seeds give other images to it."""
    masks = given()
    made = generator.finish(generator.from_masks(masks, requests(2)))
    found = generator.pairs(made)[1]
    assert (found == masks).mean() > 0.97
    tokens = generator.encode(np.full(masks.shape, -1, np.float32), requests(2), masks).pyramid
    for k in MASK_SCALES:
        np.testing.assert_array_equal(made.pyramid.maps[k], tokens.maps[k])
    others = generator.finish(generator.from_masks(masks, requests(2, 10)))
    np.testing.assert_array_equal(generator.pairs(others)[1], found)
    assert not np.array_equal(generator.image(others), generator.image(made))
    one = generator.finish(generator.from_masks(masks[1:], requests(1, 1)))
    np.testing.assert_array_equal(generator.image(one)[0], generator.image(made)[1])


def test_it_is_drawn_again_from_its_file(generator: Generator) -> None:
    """The trace knows the mask that the image was drawn to."""
    made = generator.finish(generator.from_masks(given(1), requests(1)))
    trace = Trace.from_json(made.trace(0).to_json())
    assert not trace.of_real_image
    again = replay(generator, trace)
    assert again.pyramid == made.pyramid
    assert not again.trace(0).of_real_image
    np.testing.assert_array_equal(generator.pairs(again)[1], generator.pairs(made)[1])
    half = generator.step(generator.step(generator.from_masks(given(1), requests(1))))
    restored = generator.restore([Trace.from_json(half.trace(0).to_json())])
    np.testing.assert_array_equal(generator.finish(restored).pyramid.sequence, made.pyramid.sequence)


def test_an_organ_is_moved(generator: Generator) -> None:
    """An image with a new mask, resampled from a scale: the mask stays, coarser scales of the image as well."""
    made = generator.finish(generator.from_masks(given(1), requests(1)))
    moved = np.roll(given(1), 3, axis=2)
    source = generator.encode(generator.image(made), requests(1), moved).trace(0)
    again = generator.finish(generator.resample(source, 1, seed=5, keep=MASK_SCALES))
    assert (generator.pairs(again)[1] == moved).mean() > 0.95
    np.testing.assert_array_equal(again.pyramid.maps[0], source.pyramid.maps[0])
    assert not np.array_equal(again.pyramid.maps[3], source.pyramid.maps[3])


def test_a_region_changes_in_image_and_mask(generator: Generator) -> None:
    """Outside a region both stay exactly, through edits of edits."""
    trace = generator.finish(generator.start(requests(1))).trace(0)
    before = generator.pairs(generator.restore([trace]))
    region = np.zeros((16, 16), dtype=bool)
    region[:8] = True
    edited = generator.finish(generator.resample(trace, 1, seed=9, mask=region, exact_outside=True))
    image, mask = generator.pairs(edited)
    np.testing.assert_array_equal(mask[0][8:], before[1][0][8:])
    np.testing.assert_array_equal(image[0][8:], before[0][0][8:])
    assert not np.array_equal(image[0][:8], before[0][0][:8])
    left = np.zeros((16, 16), dtype=bool)
    left[:, :4] = True
    twice = generator.finish(generator.resample(edited.trace(0), 1, seed=11, mask=left, exact_outside=True))
    np.testing.assert_array_equal(generator.pairs(twice)[1][0][:, 4:], mask[0][:, 4:])


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (np.zeros((1, 16, 16), np.uint8), "The mask is empty"),
        (np.full((1, 16, 16), 3, np.uint8), "value 3, which the model does not know; it knows 1 square, 2 bar"),
        (np.ones((1, 8, 8), np.uint8), r"masks of shape \(1, 16, 16\)"),
    ],
)
def test_invalid_masks_are_refused(masks: np.ndarray, said: str, generator: Generator) -> None:
    """Each in one sentence."""
    with pytest.raises(MedvarError, match=said):
        generator.from_masks(masks, requests(1))


def test_models_without_masks_refuse_masks(tiny_backend: TorchBackend, generator: Generator) -> None:
    """Nobody gets a mask that nothing drew."""
    plain = Generator(tiny_backend)
    with pytest.raises(MedvarError, match="without masks"):
        plain.from_masks(given(1), [Request()])
    with pytest.raises(MedvarError, match="without masks"):
        plain.pairs(plain.finish(plain.start([Request()])))
    with pytest.raises(MedvarError, match="needs masks of shape"):
        generator.encode(np.zeros((1, 16, 16), np.float32), requests(1))


def test_a_bundle_with_wrong_masks_is_refused(pair_bundle: Bundle, tmp_path: Path) -> None:
    """Numbers that stand for no structure are refused, and so is a manifest that names no scale."""
    import json
    import shutil

    from medvar_engine.bundle.sign import sign_bundle

    folder = tmp_path / "bundle"
    for masks, said in (
        ({"structures": [{"name": "square", "colour": "#ff0000"}], "scales": [2]}, "numbers from 0 to 1"),
        ({"structures": [], "scales": [2]}, "has an invalid field"),
        ({"structures": [{"name": "square", "colour": "#ff0000"}], "scales": [9]}, "has an invalid field"),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pair_bundle.path, folder)
        values = json.loads((folder / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps(values | {"masks": masks}))
        sign_bundle(folder)
        with pytest.raises(MedvarError, match=said):
            draw_pairs(folder)


def draw_pairs(folder: Path) -> None:
    """To given masks and without."""
    generator = Generator(OnnxBackend(read_bundle(folder), device="cpu"))
    for seed in range(20):
        generator.pairs(generator.finish(generator.from_masks(np.ones((1, 16, 16), np.uint8), requests(1, seed))))
        generator.pairs(generator.finish(generator.start(requests(1, seed))))
