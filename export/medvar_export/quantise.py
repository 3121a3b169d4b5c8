"""Int8 quantisation of the matrix products of a graph, with one factor per weight column and per token.

The dynamic quantisation of ONNX Runtime uses one factor for a whole batch, so that an image would depend on the rest of
the batch. Here every token has its own factor, so rows are independent. Only standard operators are used.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# 7 bits per weight: processors without VNNI add two products of 8 by 8 bits in 16 bits, and would clip the sum.
WEIGHT_LEVELS = 63
ACTIVATION_LEVELS = 127
SCALE = ".scale"  # suffix of the names of the column factors
_ZERO = 128  # zero point of activations, which are unsigned for the fast product
_SMALL = 2**13  # number of weights; smaller products are not faster
_SHARED: dict[str, np.ndarray[Any, Any]] = {
    "int8.levels": np.array(ACTIVATION_LEVELS, np.float32),
    "int8.tiny": np.array(1e-20, np.float32),  # the smallest factor, for a token of zeros
    "int8.zero": np.array(_ZERO, np.uint8),
    "int8.flat": np.array([-1], np.int64),
}


def quantise_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with large ``MatMul`` by float32 constants computed in int8.

    Products after a GELU are not converted: a few of its values are much larger than the others of their token, which
    int8 would round to zero (nine tenths of the demo model's added loss came from there). Biases, norms and attention
    stay in float32.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    weights = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and np.prod(tensor.dims) >= _SMALL
    }
    peaked = {node.output[0] for node in graph.node if node.op_type == "Gelu"}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights and node.input[0] not in peaked:
            nodes += _product(node.input[0], node.input[1], node.output[0], weights[node.input[1]].dims[0], graph)
            done.add(node.input[1])
        else:
            nodes.append(node)
    for name in done:
        _quantise_weight(graph, weights[name])
    if done:
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in _SHARED.items())
    still_used = {name for node in nodes for name in node.input}
    for name in done - still_used:
        graph.initializer.remove(weights[name])
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _quantise_weight(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> None:
    """Replace a weight ``(rows, columns)`` by integers and a factor per column."""
    values = numpy_helper.to_array(tensor)
    scale = np.maximum(np.abs(values).max(axis=0), 1e-20) / WEIGHT_LEVELS
    whole = np.rint(values / scale).astype(np.int8)
    graph.initializer.append(numpy_helper.from_array(whole, f"{tensor.name}.int8"))
    graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), tensor.name + SCALE))


def _product(x: str, weight: str, out: str, inner: int, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of ``x`` (…, inner) times the weight: find the factor of each token, round, multiply, rescale."""
    graph.initializer.append(numpy_helper.from_array(np.array([-1, inner], np.int64), f"{out}.rows"))

    def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [name], **attributes)

    zeros = helper.make_tensor("value", TensorProto.UINT8, [1], [_ZERO])
    return [
        node("Abs", [x], f"{out}.size"),
        node("ReduceMax", [f"{out}.size", "int8.flat"], f"{out}.largest", keepdims=1),
        node("Max", [f"{out}.largest", "int8.tiny"], f"{out}.range"),
        node("Div", [f"{out}.range", "int8.levels"], f"{out}.token_scale"),
        node("Reshape", [f"{out}.token_scale", "int8.flat"], f"{out}.scales"),
        node("Shape", [f"{out}.scales"], f"{out}.tokens"),
        node("ConstantOfShape", [f"{out}.tokens"], f"{out}.zeros", value=zeros),
        node("Reshape", [x, f"{out}.rows"], f"{out}.flat"),
        node("QuantizeLinear", [f"{out}.flat", f"{out}.scales", f"{out}.zeros"], f"{out}.whole", axis=0),
        node("Shape", [x], f"{out}.shape"),
        node("Reshape", [f"{out}.whole", f"{out}.shape"], f"{out}.rounded"),
        node("MatMulInteger", [f"{out}.rounded", f"{weight}.int8", "int8.zero"], f"{out}.sum"),
        node("Cast", [f"{out}.sum"], f"{out}.float", to=TensorProto.FLOAT),
        node("Mul", [f"{out}.float", f"{out}.token_scale"], f"{out}.by_token"),
        node("Mul", [f"{out}.by_token", weight + SCALE], out),
    ]
