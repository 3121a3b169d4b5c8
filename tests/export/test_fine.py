"""The small transformer in a bundle: exported or put in later, refused when it is another model's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle import FINE, Bundle, read_bundle
from medvar_engine.cli.fine import fine as add_fine
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.generator import Generator
from medvar_engine.models.files import load_transformer, save_transformer
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.trace import Request, Trace
from medvar_engine.write.into_bundle import add_to_bundle
from medvar_export import fine as exporting
from medvar_export import precision
from medvar_export.write_bundle import Description, export_bundle

Models = tuple[Tokenizer, Transformer]
Weights = tuple[Path, Path]


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle, to be changed."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def drawn(bundle: Bundle) -> Trace:
    generator = Generator(OnnxBackend(bundle, device="cpu"))
    return generator.finish(generator.start([Request(Condition("CT"), 3)])).trace(0)


def test_the_bundle_itself_stays_the_same(tiny_pair: Path, tiny_bundle: Path) -> None:
    """Images made before would no longer replay, or the same seed would give another one without asking for it."""
    before, after = read_bundle(tiny_bundle), read_bundle(tiny_pair)
    assert (before.fine, before.collaborative_digest) == (None, None)
    assert after.fine is not None
    assert (after.fine.from_scale, after.fine.shape) == (2, {"depth": 1, "heads": 3, "head_dim": 4})
    assert set(after.sha256) - set(before.sha256) == {FINE}
    assert {name: contents(tiny_pair)[name] for name in before.sha256} == {
        name: contents(tiny_bundle)[name] for name in before.sha256
    }
    assert (drawn(after).pyramid, drawn(after).model) == (drawn(before).pyramid, before.digest)
    assert 0 <= after.parity["fine_logits"] < exporting.FLOAT32_BAR


def test_exported_with_the_model(
    tiny_weights: Weights,
    tiny_fine: Path,
    tiny_pair: Path,
    tmp_path: Path,
    traced: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Export would leave it out, or give another one than when it is put in later."""
    graph = read_bundle(tiny_pair).read(FINE)
    monkeypatch.setattr(exporting, "_graph", lambda *_: graph)  # tracing takes long
    about = Description("tiny", "MIT", (), "nobody", "# tiny\n")
    small = exporting.FineWeights(tiny_fine, 2)
    bundle = read_bundle(export_bundle(*tiny_weights, tmp_path / "out", about, fine=small, tell=lambda _: None))
    assert (bundle.sha256[FINE], bundle.fine) == (read_bundle(tiny_pair).sha256[FINE], read_bundle(tiny_pair).fine)
    assert {"logits", "fine_logits"} <= set(bundle.parity)


def test_the_precision_is_the_bundles(copied: Path, tiny_fine: Path) -> None:
    """A bundle that was made small would get a large file; and halves must still draw what torch draws."""
    add_to_bundle(copied, {}, precision="float16")
    add_fine(str(copied), tiny_fine, 3)
    bundle = read_bundle(copied)
    assert 0 < bundle.parity["fine_logits"] < 0.2
    add_to_bundle(copied, {}, precision="float8")
    with pytest.raises(MedvarError, match="precision 'float8'"):
        add_fine(str(copied), tiny_fine, 3)
    assert read_bundle(copied).sha256 == bundle.sha256


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocabulary": 25}, "vocabulary is 25 and not 24"),
        ({"schedule": (1, 2, 4)}, "schedule"),
        ({"latent_channels": 5}, "latent_channels is 5 and not 4"),
        ({}, "labels"),
    ],
)
def test_another_models_is_refused(
    copied: Path, tiny_weights: Weights, tiny_fine: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    """Fine scales would be noise: the small transformer would read codes or conditions that it never saw."""
    network, labels = load_transformer(tiny_fine)
    if not change:
        labels = LabelSpace(modality=("MR", "CT"), region=labels.region, plane=labels.plane)
    other = tmp_path / "other.safetensors"
    save_transformer(other, Transformer(replace(network.config, **change)), labels)  # type: ignore[arg-type]
    before = contents(copied)
    with pytest.raises(MedvarError, match=rf"other\.safetensors cannot draw the fine scales here.* {says}"):
        add_fine(str(copied), other, 2)
    about = Description("new", "MIT", (), "nobody", "# tiny\n")
    with pytest.raises(MedvarError, match=says):
        export_bundle(*tiny_weights, tmp_path / "out", about, fine=exporting.FineWeights(other, 2))
    assert not (tmp_path / "out").exists()
    assert contents(copied) == before


def test_a_scale_that_leaves_nothing_to_draw_is_refused(copied: Path, tiny_fine: Path, tiny_weights: Weights) -> None:
    """A slip would be found when somebody draws."""
    before = contents(copied)
    for from_scale in (0, 4):
        with pytest.raises(MedvarError, match=f"begin at one of 1…3, not at {from_scale}"):
            add_fine(str(copied), tiny_fine, from_scale)
    with pytest.raises(MedvarError, match="holds a tokenizer"):
        add_fine(str(copied), tiny_weights[0], 2)
    assert contents(copied) == before


def test_a_graph_that_draws_something_else_is_refused(
    copied: Path, tiny_fine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of the exporter would be found by whoever looks at images."""
    before = contents(copied)
    original: Callable[[Transformer], object] = precision.step_graph

    def wrong(network: Transformer) -> object:
        with torch.no_grad():
            network.head.bias.add_(0.5)
            graph = original(network)
            network.head.bias.sub_(0.5)
        return graph

    monkeypatch.setattr(precision, "step_graph", wrong)
    with pytest.raises(MedvarError, match=r"differs from torch by 0\.5"):
        add_fine(str(copied), tiny_fine, 2)
    assert contents(copied) == before
