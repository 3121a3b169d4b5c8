"""Half precision of graphs, for storage only or also for arithmetic. For int8 see `quantise`."""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from medvar_engine.errors import MedvarError
from medvar_engine.models.transformer import Transformer
from medvar_export.graphs import step_graph
from medvar_export.quantise import SCALE, quantise_products

Precision = Literal["float32", "float16", "float16-weights", "int8-weights"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "float16-weights", "int8-weights")
_SMALL = 1024  # elements; smaller constants are not converted


def step_in(precision: Precision, transformer: Transformer) -> onnx.ModelProto:
    """The graph of the transformer for a bundle of ``precision``. Raises `MedvarError` as `stored` does."""
    graph = step_graph(half_arithmetic(transformer) if precision == "float16" else transformer)
    if precision == "int8-weights":
        graph = quantise_products(graph)
    return stored(graph, precision)


def stored(graph: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """A graph for a bundle of ``precision``. Raises `MedvarError` for a weight outside the range of the type."""
    if precision == "float32":
        return graph
    try:
        return store_half(graph)
    except ValueError as error:
        raise MedvarError(f"{error} Export with precision float32.") from error


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with large float32 constants stored as float16 and converted when the graph is loaded.

    This halves the file size; arithmetic stays in float32. Raises `ValueError` for a weight beyond the range of
    float16.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.size < _SMALL or tensor.name.endswith(SCALE):
            continue  # scales of int8 weights can be too small for float16
        if _resizes(array):
            continue
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"The weight {tensor.name} has values beyond float16's range.")
        stored = f"{tensor.name}.half"
        casts.append(helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT))
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(half, stored))
    for i, cast in enumerate(casts):
        graph.node.insert(i, cast)
    return model


def _resizes(array: npt.NDArray[Any]) -> bool:
    """Whether a constant is a matrix that resizes images: the sum of its rows or columns is 1.

    Such a matrix is not rounded, because an image would then get other tokens than with the torch model.
    """
    return array.ndim == 2 and any(bool(np.allclose(array.sum(axis), 1, atol=1e-5)) for axis in (0, 1))


def half_arithmetic(transformer: Transformer) -> Transformer:
    """A copy of the transformer that computes in float16, for GPUs.

    The l2-normalised attention keeps this stable.
    """
    return copy.deepcopy(transformer).to(torch.float16).eval()
