"""Export writes a bundle whole or not at all, and refuses what would not work."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from medvar_engine import storage
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import save_transformer
from medvar_export import write_bundle
from medvar_export.precision import Precision
from medvar_export.write_bundle import Description, export_bundle

Weights = tuple[Path, Path]
ABOUT = Description("tiny", "MIT", (), "nobody", "# tiny\n")


@pytest.fixture
def export(tiny_weights: Weights, tmp_path: Path) -> Callable[..., Path]:
    """Export of the tiny networks to ``tmp_path/out``."""

    def run(out: Path = tmp_path / "out", precision: Precision = "float32", weights: Weights = tiny_weights) -> Path:
        return export_bundle(*weights, out, ABOUT, precision=precision, log=lambda _: None)

    return run


@pytest.fixture
def not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is found before the long part."""

    def fail(_: object) -> None:
        pytest.fail("traced for nothing")

    monkeypatch.setattr(write_bundle, "tokenizer_graphs", fail)
    monkeypatch.setattr("medvar_export.precision.step_graph", fail)


@pytest.mark.usefixtures("traced")
def test_a_bundle_is_complete(export: Callable[..., Path], tiny_weights: Weights) -> None:
    """A bundle would lack what it says of itself, or a file that generating needs."""
    bundle = read_bundle(export())
    assert {path.name for path in bundle.path.iterdir()} == {*bundle.sha256, "bundle.json"}
    for name in bundle.sha256:
        bundle.read(name)
    assert (bundle.name, bundle.licence, bundle.card, bundle.precision) == ("tiny", "MIT", "# tiny\n", "float32")
    assert bundle.labels.plane == ("axial", "coronal")
    assert [path.name for path in bundle.path.parent.iterdir()] == ["out"]
    assert all(path.is_file() for path in tiny_weights)


@pytest.mark.usefixtures("traced")
def test_half_precision_halves_the_file_size(
    export: Callable[..., Path], tiny_bundle: Path, tiny_onnx: OnnxBackend
) -> None:
    """A bundle for download would be twice as large as need be, or no longer give nearly the same numbers."""
    bundle = read_bundle(export(precision="float16-weights"))
    assert bundle.precision == "float16-weights"
    assert 0 < bundle.parity["logits"] < 0.1
    for name in ("step.onnx", "decode.onnx"):
        tensors = onnx.load(bundle.path / name).graph.initializer
        assert {t.data_type for t in tensors if np.prod(t.dims) >= 1024} == {onnx.TensorProto.FLOAT16}
        assert (bundle.path / name).stat().st_size < (tiny_bundle / name).stat().st_size
    assert _image(bundle.path).shape == _image(tiny_bundle).shape


def test_arithmetic_in_half_precision(export: Callable[..., Path]) -> None:
    """The bundle for GPUs could not be made, or would not say how far it is from torch."""
    bundle = read_bundle(export(precision="float16"))
    assert bundle.precision == "float16"
    assert 0 < bundle.parity["logits"] < 0.5
    assert np.isfinite(list(bundle.parity.values())).all()
    step = onnx.load(bundle.path / "step.onnx").graph
    products = {node.input[0] for node in step.node if node.op_type in ("MatMul", "Gemm")}
    kinds = {value.name: value.type.tensor_type.elem_type for value in step.value_info}
    assert {kinds[name] for name in products if name in kinds} == {onnx.TensorProto.FLOAT16}
    assert np.abs(_image(bundle.path)).max() <= 1


def _image(path: Path) -> np.ndarray:
    generator = Generator(OnnxBackend(read_bundle(path), device="cpu"))
    return generator.image(generator.finish(generator.start([Request(Condition("CT"), 3)])))


@pytest.mark.usefixtures("not_traced")
def test_an_existing_folder_is_refused(export: Callable[..., Path], tmp_path: Path) -> None:
    """A second export would silently replace the first model."""
    (tmp_path / "out").mkdir()
    with pytest.raises(MedvarError, match="exists already"):
        export()


@pytest.mark.usefixtures("not_traced")
def test_an_unwritable_folder_is_reported(export: Callable[..., Path], tmp_path: Path) -> None:
    """Minutes of tracing would end in a traceback."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MedvarError, match=r"out cannot be written \(Not a directory\)"):
        export(tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("space", [0, 3, 7, 8, 9])
def test_a_full_disk_leaves_nothing(
    export: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: int
) -> None:
    """Half a bundle would stay, and take the last room on the disk."""
    open_file, create, written = Path.open, storage.create_file, []

    def count(path: Path) -> None:
        if len(written) == space:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)

    def open_until_full(path: Path, mode: str = "r", *more: Any, **others: Any) -> IO[Any]:
        if "w" in mode:
            count(path)
        return open_file(path, mode, *more, **others)

    def create_until_full(path: Path) -> IO[bytes]:
        count(path)
        return create(path)

    monkeypatch.setattr(Path, "open", open_until_full)
    monkeypatch.setattr(storage, "create_file", create_until_full)
    with pytest.raises(MedvarError, match="No space left"):
        export()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_an_interrupted_export_leaves_nothing(
    export: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """After Ctrl-C a hidden folder would stay."""

    def interrupt(_: object) -> None:
        raise error

    monkeypatch.setattr(write_bundle, "tokenizer_graphs", interrupt)
    with pytest.raises(error):
        export()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("not_traced")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"schedule": (1, 2, 4)}, "sides of the token maps"),
        ({"vocabulary": 25}, "number of codes"),
        ({"latent_channels": 5}, "channels of the scale features"),
        ({"schedule": (2, 3, 4)}, "sides of the token maps"),
    ],
)
def test_mismatched_networks_are_refused(
    export: Callable[..., Path],
    tiny_models: tuple[Tokenizer, Transformer],
    tiny_weights: Weights,
    tmp_path: Path,
    change: dict[str, object],
    what: str,
) -> None:
    """Files of two runs mixed up would give a bundle of noise, or a crash inside torch."""
    other = Transformer(dataclasses.replace(tiny_models[1].config, **change))  # type: ignore[arg-type]
    save_transformer(tmp_path / "other.safetensors", other, LabelSpace())
    with pytest.raises(MedvarError, match=f"its {what} is"):
        export(weights=(tiny_weights[0], tmp_path / "other.safetensors"))


@pytest.mark.usefixtures("not_traced")
def test_files_in_the_wrong_order_are_refused(export: Callable[..., Path], tiny_weights: Weights) -> None:
    """Swapped arguments would be a list of missing keys."""
    with pytest.raises(MedvarError, match="a tokenizer is needed"):
        export(weights=tiny_weights[::-1])


@pytest.mark.usefixtures("not_traced")
def test_an_unknown_precision(export: Callable[..., Path]) -> None:
    """A typing mistake would be exported as float32."""
    with pytest.raises(MedvarError, match="float16-weights"):
        export(precision="int8")


def test_weights_too_large_for_half_precision(
    export: Callable[..., Path], traced: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    """Infinite weights would be stored."""
    graph = traced["decode.onnx"].graph
    graph.initializer.append(numpy_helper.from_array(np.full(2048, 1e6, np.float32), "huge"))
    graph.node.append(helper.make_node("Identity", ["huge"], ["unused"]))
    with pytest.raises(MedvarError, match="huge has values beyond float16"):
        export(precision="float16-weights")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("logits", "precision", "says"),
    [
        (0.1, "float32", "differ from torch by 0.1"),
        (np.nan, "float32", "not finite"),
        (np.nan, "float16-weights", "not finite"),
    ],
)
def test_an_inaccurate_export_is_refused(
    export: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logits: float,
    precision: Precision,
    says: str,
) -> None:
    """A bundle that computes something else than what was trained would be handed on."""
    measured = {"logits": logits, "latent": 0.0, "image": 0.0, "tokens_agreeing": 1.0}
    monkeypatch.setattr(write_bundle, "measure_parity", lambda *_: measured)
    with pytest.raises(MedvarError, match=says):
        export(precision=precision)
    assert list(tmp_path.iterdir()) == []
