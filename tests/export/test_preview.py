"""The light decoder in a bundle: exported or put in later, refused when it is another tokenizer's."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.bundle.read import PREVIEW, read_bundle
from medvar_engine.cli.main import app
from medvar_engine.cli.preview_command import preview as add_preview
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.replay import replay
from medvar_engine.generate.trace import Request
from medvar_engine.models.preview_decoder import PreviewDecoder, preview_config
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_preview_of, save_preview, tokenizer_digest
from medvar_engine.tokens.codebook import codebook_digest
from medvar_export import preview_graph as exporting
from medvar_export.write_bundle import Description, export_bundle

Models = tuple[Tokenizer, Transformer]
Weights = tuple[Path, Path]


@pytest.fixture(scope="session")
def light(tiny_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained light decoder of the tiny tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PreviewDecoder(preview_config(tiny_models[0].config))
    path = tmp_path_factory.mktemp("light") / "preview.safetensors"
    save_preview(path, model, codebook_digest(tiny_models[0].quantizer.codebook.weight.detach().numpy()))
    return path


@pytest.fixture(scope="session")
def lighted(tiny_bundle: Path, light: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with that light decoder."""
    folder = tmp_path_factory.mktemp("lighted") / "tiny"
    shutil.copytree(tiny_bundle, folder)
    add_preview(str(folder), light)
    return folder


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle, to be changed."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def made(folder: Path) -> tuple[Generator, np.ndarray]:
    """A generator, and an image of it."""
    generator = Generator(OnnxBackend(read_bundle(folder), device="cpu"))
    return generator, generator.image(generator.finish(generator.start([Request(Condition("CT"), 3)])))


def test_images_and_the_digest_of_the_model_stay(lighted: Path, tiny_bundle: Path) -> None:
    """Traces made before would no longer replay, or the same seed would give another image."""
    before, after = read_bundle(tiny_bundle), read_bundle(lighted)
    assert after.bundle_id == before.bundle_id
    (generator, image), (_, other) = made(tiny_bundle), made(lighted)
    np.testing.assert_array_equal(image, other)
    trace = generator.finish(generator.start([Request(Condition("MR"), 5)])).trace(0)
    again = replay(Generator(OnnxBackend(after, device="cpu")), trace)
    assert again.trace(0).pyramid == trace.pyramid
    for name in before.sha256:
        assert (lighted / name).read_bytes() == (tiny_bundle / name).read_bytes()
    assert set(after.sha256) - set(before.sha256) == {PREVIEW}
    assert 0 <= after.parity["preview"] < exporting.BAR


def test_previews_are_light_and_the_image_is_not(lighted: Path, tiny_weights: Weights, light: Path) -> None:
    """Looking at every scale would cost as much as before, or a finished image would be a rough one."""
    generator, image = made(lighted)
    full = Generator(TorchBackend.load(*tiny_weights))
    both = Generator(TorchBackend.load(*tiny_weights, preview=light))
    assert [g.backend.info.light_previews for g in (generator, full, both)] == [True, False, True]
    generation = generator.finish(generator.start([Request(Condition("CT"), 3)]))
    for k in range(generation.depth - 1):
        shown = generator.preview(generation, k)
        np.testing.assert_allclose(shown, both.preview(generation, k), atol=exporting.BAR)
        assert np.abs(shown - full.preview(generation, k)).max() > 0.05
    np.testing.assert_array_equal(generator.preview(generation, generation.depth - 1), image)
    *_, unfinished = generator.run(generator.start([Request(Condition("CT"), 3)]), until=1)
    np.testing.assert_allclose(generator.image_so_far(unfinished), full.preview(generation, 1), atol=1e-4)


def test_candidates_are_compared_by_the_full_decoder(lighted: Path, tiny_bundle: Path) -> None:
    """Which of n candidates is kept would change with a file that is to change no image."""
    chosen = []
    for folder in (lighted, tiny_bundle):
        seen: list[np.ndarray] = []
        generator = Generator(OnnxBackend(read_bundle(folder), device="cpu"))

        def score(images: np.ndarray, seen: list[np.ndarray] = seen) -> np.ndarray:
            seen.append(images)
            return images.mean((1, 2))

        generator.best_of(generator.start([Request(Condition("CT"), 0)]), 0, 3, score, until=1)
        chosen.append(seen[0])
    np.testing.assert_array_equal(*chosen)


def test_exported_with_the_model(
    tiny_weights: Weights, light: Path, lighted: Path, tmp_path: Path, traced: dict[str, object]
) -> None:
    """Export would leave the light decoder out, or give another one than when it is put in later."""
    about = Description("tiny", "MIT", (), "nobody", "# tiny\n")
    folder = export_bundle(*tiny_weights, tmp_path / "out", about, preview=light, log=lambda _: None)
    bundle = read_bundle(folder)
    assert bundle.sha256[PREVIEW] == read_bundle(lighted).sha256[PREVIEW]
    assert bundle.parity["preview"] < exporting.BAR
    assert bundle.parity["logits"] >= 0


def test_a_decoder_of_another_tokenizer_is_refused(
    copied: Path, tiny_weights: Weights, tiny_models: Models, tmp_path: Path, traced: dict[str, object]
) -> None:
    """Previews would be noise: latents of two tokenizers have nothing in common."""
    other = tmp_path / "other.safetensors"
    save_preview(other, PreviewDecoder(preview_config(tiny_models[0].config)), "ab" * 32)
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    with pytest.raises(MedvarError, match=r"other\.safetensors was not trained for the tokenizer of tiny"):
        add_preview(str(copied), other)
    with pytest.raises(MedvarError, match="was not trained for the tokenizer of"):
        TorchBackend.load(*tiny_weights, preview=other)
    about = Description("new", "MIT", (), "nobody", "# tiny\n")
    with pytest.raises(MedvarError, match="was not trained for the tokenizer of"):
        export_bundle(*tiny_weights, tmp_path / "out", about, preview=other, log=lambda _: None)
    assert not (tmp_path / "out").exists()
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def test_a_decoder_for_other_weights_with_the_same_codes_is_refused(tiny_models: Models, tmp_path: Path) -> None:
    """Previews would show what an earlier decoder made of the codes, after training went on with the codes held."""
    tokenizer, path = copy.deepcopy(tiny_models[0]), tmp_path / "preview.safetensors"
    model = PreviewDecoder(preview_config(tokenizer.config))
    codebook = codebook_digest(tokenizer.quantizer.codebook.weight.detach().numpy())
    save_preview(path, model, codebook, tokenizer_digest(tokenizer))
    assert load_preview_of(path, tokenizer, "mine").config == model.config
    with torch.no_grad():
        next(tokenizer.decoder.parameters()).add_(0.1)
    with pytest.raises(MedvarError, match="not trained for the tokenizer of mine: the codebooks are equal"):
        load_preview_of(path, tokenizer, "mine")


def test_a_graph_with_another_result_is_refused(copied: Path, light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of the exporter would be found by whoever looks at previews."""
    before = {path.name: path.read_bytes() for path in copied.iterdir()}

    def wrong(preview: PreviewDecoder, side: int) -> object:
        with torch.no_grad():
            preview.seams.weight.mul_(0.5)
            graph = original(preview, side)
            preview.seams.weight.mul_(2)
        return graph

    original: Callable[..., object] = exporting.preview_graph
    monkeypatch.setattr(exporting, "preview_graph", wrong)
    with pytest.raises(MedvarError, match="differs from torch"):
        add_preview(str(copied), light)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def test_export_at_the_command_line(copied: Path, light: Path, tmp_path: Path) -> None:
    """Whoever trained a light decoder could not put it into a bundle, nor see whether one is in it."""
    runner = CliRunner()
    assert "previews    by the full decoder" in runner.invoke(app, ["info", str(copied)]).stdout
    result = runner.invoke(app, ["preview", str(copied), str(light)])
    assert (result.exit_code, result.stdout.strip()) == (0, str(copied))
    assert "previews    by a light decoder" in runner.invoke(app, ["info", str(copied)]).stdout
    (tmp_path / "none.safetensors").write_bytes(b"none")
    with pytest.raises(MedvarError, match="not a complete safetensors file"):
        add_preview(str(copied), tmp_path / "none.safetensors")
