"""Graphs of strangers: what would unfold while it is loaded is refused, and what networks have is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from medvar_engine.bundle.read import find_bundle
from medvar_engine.untrusted.onnx_graph import may_fold


def model(nodes: list[Any], constants: dict[str, Any], **more: Any) -> bytes:
    """A graph ``x`` → ``y``."""
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors, **more)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def last(*constants: str) -> Any:
    return helper.make_node("Add", ["x", *constants], ["y"])


def doubled(times: int) -> list[Any]:
    nodes = [helper.make_node("Concat", [f"c{n}", f"c{n}"], [f"c{n + 1}"], axis=0) for n in range(times)]
    return [*nodes, last(f"c{times}")]


@pytest.mark.parametrize(
    ("nodes", "constants", "folds"),
    [
        ([last("w")], {"w": np.ones(4, np.float32)}, True),
        ([helper.make_node("Cast", ["w"], ["v"], to=1), last("v")], {"w": np.ones(4, np.float16)}, True),
        ([helper.make_node("Transpose", ["w"], ["v"]), last("v")], {"w": np.ones((2, 3), np.float32)}, True),
        ([helper.make_node("Tile", ["x", "n"], ["y"])], {"n": np.array([2**30])}, True),  # nothing to compute before
        ([helper.make_node("ConstantOfShape", ["n"], ["v"]), last("v")], {"n": np.array([2**30])}, False),
        ([helper.make_node("Shape", ["x"], ["n"]), helper.make_node("ConstantOfShape", ["n"], ["y"])], {}, False),
        ([helper.make_node("Mul", ["a", "b"], ["v"]), last("v")], {"a": np.ones((2000, 1)), "b": np.ones(2000)}, False),
        (doubled(3), {"c0": np.ones(4)}, True),
        (doubled(40), {"c0": np.ones(4)}, False),
        ([helper.make_node("Odd", ["w"], ["v"], domain="com.microsoft"), last("v")], {"w": np.ones(4)}, False),
    ],
)
def test_constants_that_grow_are_not_computed_in_advance(nodes: list[Any], constants: Any, folds: bool) -> None:
    """Breaks for whoever opens a stranger's model: the runtime computes them at once, in any amount of memory."""
    assert may_fold(model(nodes, constants)) is folds


def test_exported_graphs_are_computed_in_advance() -> None:
    """Breaks for speed: weights of half precision would be converted at every step."""
    for path in find_bundle().glob("*.onnx"):
        assert may_fold(path.read_bytes()), path.name


def sparse() -> Any:
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([[5]]), "i"), [2**31])


def test_what_unfolds_is_refused() -> None:
    """Breaks for whoever opens a stranger's model: a kilobyte takes gigabytes, or hours, to be loaded."""
    with pytest.raises(ValueError, match="sparse"):
        may_fold(model([last("w")], {}, sparse_initializer=[sparse()]))
    node = helper.make_node("Constant", [], ["w"], sparse_value=sparse())
    with pytest.raises(ValueError, match="sparse"):
        may_fold(model([node, last("w")], {}))
    body = helper.make_graph([node], "then", [], [helper.make_tensor_value_info("w", 1, None)])
    with pytest.raises(ValueError, match="sparse"):
        may_fold(model([helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)], {}))
    own = helper.make_function("d", "f", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [])
    with_functions = helper.make_model(helper.make_graph([], "g", [], []), functions=[own])
    with pytest.raises(ValueError, match="functions"):
        may_fold(with_functions.SerializeToString())
    many_axes = helper.make_tensor("w", onnx.TensorProto.FLOAT, [1] * 65, [1.0])
    with pytest.raises(ValueError, match="axes"):
        may_fold(model([helper.make_node("Constant", [], ["w"], value=many_axes), last("w")], {}))
    with pytest.raises(ValueError, match="entries"):
        may_fold(b"\x3a\x80\x80\x40" + b"\x0a\0" * 2**19)


@pytest.mark.parametrize(
    "content", [b"", b"\x3a", b"\x3a\x05ab", b"\xff" * 20, b"\x3b", b"ORTM" * 9, b"\x38\x01", b"\0\0"]
)
def test_other_files_are_refused(content: bytes) -> None:
    """Breaks for whoever opens a damaged file: a message, not a traceback."""
    with pytest.raises(ValueError, match=r"ONNX file|graphs"):
        may_fold(content)


def test_any_cut_or_changed_graph_is_read_or_refused() -> None:
    """Breaks for whoever opens a damaged file: a message, not a traceback."""
    good, chance = model(doubled(3), {"c0": np.ones(4)}), np.random.default_rng(0)
    for _ in range(2000):
        content = bytearray(good[: chance.integers(1, len(good) + 1)])
        content[chance.integers(len(content))] = chance.integers(256)
        try:
            may_fold(bytes(content))
        except ValueError:
            continue
