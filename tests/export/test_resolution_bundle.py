"""A bundle of a pyramid of resolutions runs as the torch model does, and needs no code of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx as onnx_model
import pytest
import torch
import torch.nn.functional as F

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.bundle.read import MANIFEST, Bundle, read_bundle
from medvar_engine.bundle.sign import sign_bundle
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import save_tokenizer, save_transformer
from medvar_engine.request import Request
from medvar_engine.tokens.codebook import codes_of_scale
from medvar_export.from_bundle import read_weights
from medvar_export.write_bundle import Description, export_bundle

SCHEDULE = (1, 2, 3, 4)
LABELS = LabelSpace(modality=("CT", "MR"), region=("brain", "chest"), position=8)
Networks = tuple[ResolutionTokenizer, Transformer]


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Random weights, so that nothing is hidden by zeros."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = ResolutionConfig(
        16, SCHEDULE, 32, feature_channels=12, patch=4, margin=2, refiner_widths=(8, 16), refiner_blocks=1, grain=True
    )
    tokenizer = ResolutionTokenizer(config).eval()
    tokenizer.load_state_dict({name: torch.randn_like(t) * 0.2 for name, t in tokenizer.state_dict().items()})
    shape = TransformerConfig(SCHEDULE, 32, 12, LABELS.sizes, depth=2, width=32, heads=2, shared_modulation=True)
    return tokenizer, Transformer(shape).eval()


@pytest.fixture(scope="module")
def bundle(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("resolution")
    files = folder / "tokenizer.safetensors", folder / "transformer.safetensors"
    save_tokenizer(files[0], networks[0])
    save_transformer(files[1], networks[1], LABELS)
    about = Description("tiny", "MIT", (), "nobody", "# tiny\n", default_condition=Condition("MR", "brain"))
    return read_bundle(export_bundle(*files, folder / "bundle", about, log=lambda _: None))


@pytest.fixture(scope="module")
def onnx(bundle: Bundle) -> OnnxBackend:
    return OnnxBackend(bundle, device="cpu")


def finished(generator: Generator, requests: list[Request]) -> Generation:
    *_, last = generator.run(generator.start(requests))
    return last


def test_the_bundle_computes_the_same_as_torch(bundle: Bundle) -> None:
    """Images in napari would not be those that training saw."""
    assert bundle.parity["tokens_agreeing"] == 1
    assert max(bundle.parity[name] for name in ("logits", "latent", "image")) < 1e-4
    assert bundle.feature_channels == 12
    assert bundle.default_condition == Condition("MR", "brain")
    assert bundle.latent_channels == 16


def test_both_backends_make_the_same_images(bundle: Bundle, networks: Networks, onnx: OnnxBackend) -> None:
    """Same seed, same image, whatever runs it; also with a guided batch and a position that is left open."""
    requests = [Request(Condition("MR", "brain", position=0.4), seed=3), Request(Condition("CT"), seed=4)]
    in_torch = Generator(TorchBackend(*networks, LABELS))
    together, expected = finished(Generator(onnx), requests), finished(in_torch, requests)
    assert together.pyramid == expected.pyramid
    np.testing.assert_allclose(Generator(onnx).image(together), in_torch.image(expected), atol=1e-4)
    for i, request in enumerate(requests):
        assert finished(Generator(onnx), [request]).pyramid == together.pyramid.select([i])


def test_previews_are_the_canvas_itself(onnx: OnnxBackend, networks: Networks) -> None:
    """A preview would show what is not in the tokens, or cost as much as the image."""
    generator = Generator(onnx)
    made = finished(generator, [Request(seed=1)])
    assert onnx.info.light_previews
    for k in range(3):
        canvas = torch.from_numpy(made.latents[k])
        expected = F.pixel_shuffle(canvas, 4).clamp(-1, 1)[:, 0].numpy()
        np.testing.assert_allclose(generator.preview(made, k), expected, atol=1e-6)
        shown = TorchBackend(*networks, LABELS).decode(made.latents[k], preview=True)
        np.testing.assert_allclose(shown[:, 0], expected, atol=1e-6)


def test_a_real_image_is_encoded_and_every_scale_has_codes_of_its_own(onnx: OnnxBackend, networks: Networks) -> None:
    """A token picked by hand would be exchanged for one that only looks alike at another scale."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (1, 16, 16)).astype(np.float32)
    made = Generator(onnx).encode(image, [Request()])
    tokens = networks[0].encode(torch.from_numpy(image[:, None]))
    assert all(
        (a == b.numpy()).all()
        for a, b in zip(
            made.pyramid.maps, [t.view(1, n, n) for t, n in zip(tokens, SCHEDULE, strict=True)], strict=True
        )
    )
    assert onnx.codebook is not None
    for k in range(4):
        np.testing.assert_allclose(codes_of_scale(onnx.codebook, k), networks[0].quantizer.patches(k).numpy())


def test_the_encoder_takes_its_codes_from_the_codebook(bundle: Bundle, onnx: OnnxBackend, tmp_path: Path) -> None:
    """A bundle would hold all patches twice, a tenth of its size."""
    graph = onnx_model.load_from_string(bundle.read("encode.onnx"))
    assert not [tensor.name for tensor in graph.graph.initializer if bundle.vocabulary in tensor.dims]
    folder = shutil.copytree(bundle.path, tmp_path / "without")
    (folder / "codebook.npy").unlink()
    values = json.loads((folder / MANIFEST).read_text())
    del values["sha256"]["codebook.npy"]
    (folder / MANIFEST).write_text(json.dumps(values))
    sign_bundle(folder)
    with pytest.raises(MedvarError, match="codebook"):
        Generator(OnnxBackend(read_bundle(folder), device="cpu")).encode(np.zeros((1, 16, 16), np.float32), [Request()])


def test_graphs_contain_no_paths_of_the_exporting_computer(bundle: Bundle) -> None:
    """Whoever hands a bundle on would hand on the names of their folders, and perhaps their own."""
    here = str(Path(torch.__file__).parent.parent).encode()
    assert not [name for name in bundle.sha256 if here in bundle.read(name)]


def test_weights_come_back(bundle: Bundle, networks: Networks) -> None:
    """Nobody could train the shipped model further: it is there as graphs only."""
    for found, expected in zip(read_weights(bundle), networks, strict=True):
        for name, tensor in expected.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=1e-6, msg=name)
    assert read_weights(bundle)[0].config == networks[0].config


def test_codes_in_half_precision_are_read(bundle: Bundle, tmp_path: Path) -> None:
    """What ships to everybody would be twice as large as need be."""
    folder = shutil.copytree(bundle.path, tmp_path / "half")
    whole = bundle.codebook()
    assert whole is not None
    np.save(folder / "codebook.npy", whole.astype(np.float16))
    sign_bundle(folder)
    codes = read_bundle(folder).codebook()
    assert codes is not None
    assert codes.dtype == np.float32
    np.testing.assert_allclose(codes, whole, atol=1e-3)


def test_a_transformer_of_other_features_is_refused(networks: Networks, tmp_path: Path) -> None:
    """The export would fail in the middle of tracing, with an error about shapes."""
    files = tmp_path / "tokenizer.safetensors", tmp_path / "transformer.safetensors"
    save_tokenizer(files[0], networks[0])
    shape = TransformerConfig(SCHEDULE, 32, 16, LABELS.sizes, depth=1, width=32, heads=2)
    save_transformer(files[1], Transformer(shape), LABELS)
    with pytest.raises(MedvarError, match=r"was not trained on tokens of .*: its channels of the scale features is 16"):
        export_bundle(*files, tmp_path / "out", Description("tiny", "MIT", (), "nobody", "# tiny\n"))
