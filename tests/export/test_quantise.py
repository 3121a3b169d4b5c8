"""Products in int8: smaller files, nearly the same numbers, and rows that do not see each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request
from medvar_engine.types import FloatArray
from medvar_export import quantise
from medvar_export.held_out import held_out_slices
from medvar_export.precision import store_half
from medvar_export.quantise import SCALE, quantise_products
from medvar_export.write_bundle import Description, export_bundle


def chain(weights: dict[str, FloatArray], *nodes: onnx.NodeProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", "width"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: FloatArray) -> FloatArray:
    onnx.checker.check_model(model, full_check=True)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.fixture
def weight() -> FloatArray:
    return np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32) * np.float32(1e-4)


@pytest.fixture
def product(weight: FloatArray) -> onnx.ModelProto:
    return chain({"w": weight}, helper.make_node("MatMul", ["x", "w"], ["y"]))


def test_nearly_the_same_product(product: onnx.ModelProto, weight: FloatArray) -> None:
    """Images of a small bundle would be noise, also where weights are too small for half precision."""
    x = np.random.default_rng(1).standard_normal((3, 5, 64)).astype(np.float32)
    for model in (quantise_products(product), store_half(quantise_products(product))):
        difference = run(model, x) - x @ weight
        assert np.abs(difference).max() < 0.02 * np.abs(x @ weight).max()


def test_tokens_are_quantised_independently(product: onnx.ModelProto) -> None:
    """A seed would give another image beside other seeds, as it does with the runtime's own dynamic quantisation."""
    model, rng = quantise_products(product), np.random.default_rng(2)
    x = (rng.standard_normal((4, 3, 64)) * np.array([1, 1e-3, 50, 1e4])[:, None, None]).astype(np.float32)
    together = run(model, x)
    for row in range(4):
        np.testing.assert_array_equal(run(model, x[row : row + 1])[0], together[row])


def test_zeros_stay_zeros(product: onnx.ModelProto, weight: FloatArray) -> None:
    """A token of zeros, or a column of weights, would be divided by zero."""
    assert not run(quantise_products(product), np.zeros((1, 2, 64), np.float32)).any()
    weight = weight.copy()
    weight[:, 5] = 0
    model = quantise_products(chain({"w": weight}, helper.make_node("MatMul", ["x", "w"], ["y"])))
    made = run(model, np.ones((1, 2, 64), np.float32))
    assert np.isfinite(made).all()
    assert not made[..., 5].any()


def test_sums_of_extreme_values_are_not_clipped(weight: FloatArray) -> None:
    """On processors that add pairs of products in 16 bits, the largest values would come out too small."""
    big = np.full_like(weight, 1.0)
    model = quantise_products(chain({"w": big}, helper.make_node("MatMul", ["x", "w"], ["y"])))
    np.testing.assert_allclose(run(model, np.ones((1, 1, 64), np.float32)), 64, rtol=1e-5)


def test_other_operations_stay_in_floating_point(weight: FloatArray) -> None:
    """Peaks behind a GELU would be lost, and with them most of the quality; a shared weight must not be lost either."""
    square = np.random.default_rng(3).standard_normal((128, 64)).astype(np.float32)
    model = chain(
        {"w": weight, "v": square},
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Gelu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["d"]),
        helper.make_node("Gelu", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "v"], ["y"]),
    )
    made = quantise_products(model)
    kinds = [node.op_type for node in made.graph.node if node.op_type.startswith("MatMul")]
    assert kinds == ["MatMulInteger", "MatMul", "MatMulInteger", "MatMul"]
    names = {tensor.name for tensor in made.graph.initializer}
    assert {"v", "w.int8", "w" + SCALE} <= names
    assert "w" not in names
    run(made, np.ones((1, 1, 64), np.float32))
    assert model.graph.node[0].op_type == "MatMul"  # the graph that was given is as it was


@pytest.mark.usefixtures("traced")
def test_a_bundle_for_cpus(
    tiny_weights: tuple[Path, Path],
    prepared: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An int8 bundle could not be made, or would not say what it costs on slices of held-out patients."""
    monkeypatch.setattr(quantise, "_SMALL", 16)  # the tiny networks' products would be too small
    data = prepared(tmp_path / "slices", ["ct1", "ct2", "mr1", "mr2"], size=16)
    about = Description("tiny", "MIT", (), "nobody", "# tiny\n")
    out = tmp_path / "out"
    bundle = read_bundle(
        export_bundle(*tiny_weights, out, about, precision="int8-weights", data=data, log=lambda _: None)
    )
    assert bundle.precision == "int8-weights"
    assert "MatMulInteger" in {node.op_type for node in onnx.load(out / "step.onnx").graph.node}
    assert 0 < bundle.parity["logits"] < 1
    assert 0.8 < bundle.parity["tokens_drawn_alike"] <= 1
    assert bundle.parity["held_out_loss"] > 0
    assert abs(bundle.parity["held_out_loss_added"]) < 0.05
    made = []
    for count in (1, 5):
        generator = Generator(OnnxBackend(bundle, device="cpu"))
        made.append(generator.finish(generator.start([Request(Condition("CT"), seed) for seed in range(count)])))
    assert made[0].pyramid == made[1].pyramid.select([0])


def test_slices_of_another_size_are_refused(
    tiny_weights: tuple[Path, Path], prepared: Callable[..., Path], tmp_path: Path
) -> None:
    """After minutes of tracing the comparison would end in a traceback."""
    data = prepared(tmp_path / "slices", ["ct1", "ct2", "mr1", "mr2"], size=8)
    about = Description("tiny", "MIT", (), "nobody", "# tiny\n")
    with pytest.raises(MedvarError, match="8 pixels"):
        export_bundle(*tiny_weights, tmp_path / "out", about, data=data, log=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_slices_without_held_out_patients_are_accepted(prepared: Callable[..., Path], tmp_path: Path) -> None:
    """Who trained on everybody could not export with a model card."""
    data = prepared(tmp_path / "slices", ["ct1", "mr1"], size=16, test_fraction=0.0)
    assert held_out_slices(data, LabelSpace(), 16) is None
