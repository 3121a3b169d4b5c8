"""Inspects an untrusted ONNX graph before a runtime loads it, because loading alone can take any memory or time.

Functions that call each other twice, and sparse tensors, unfold to any size when they are loaded; no exported network
needs them. A runtime also computes constant parts of a graph in advance, outside of any limit. This reads the protocol
buffer (https://protobuf.dev/programming-guides/encoding) of the file's structure only, with the numbers of fields of
``onnx.proto``, so that the package onnx is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import prod

MAX_ENTRIES = 100_000
"""Largest number of nodes, tensors, attributes and other entries. A large network has some thousands."""

_SPARE = 2**20  # constant values that any graph may compute
_RANK = 64  # largest number of axes
_SAME_SIZE = (
    *("Abs", "Cast", "DequantizeLinear", "Exp", "Identity", "Log", "Neg", "Reciprocal", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceSum", "Reshape", "Slice", "Sqrt", "Squeeze", "Transpose", "Unsqueeze"),
)  # operators whose results have at most as many values as their first input
_BROADCAST = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub")

_Fields = Iterator[tuple[int, int | memoryview]]


def may_fold(content: bytes, *, weights: int = 0) -> bool:
    """Whether the constant parts of a graph, if computed in advance, need memory in proportion to its size only.

    Args:
        content: the ONNX file.
        weights: bytes of weights in other files.

    Raises:
        ValueError: if the file is not a graph in ONNX format, has far more entries than a network has, or has functions
            or sparse tensors.
    """
    return _Graph(2 * (len(content) + weights) + _SPARE).read_model(memoryview(content))


class _Graph:
    """The constants of one graph."""

    def __init__(self, most: int) -> None:
        self._most = most  # values of all constants together
        self._entries = 0
        self._counts: dict[str, int] = {"": 0}  # largest number of values of each constant
        self._folds = True

    def read_model(self, model: memoryview) -> bool:
        graphs = []
        for number, value in self._fields(model):
            if number == 25:
                raise ValueError("it has functions of its own, which can unfold to any size; export it with inlining")
            if number == 7:
                graphs.append(value)
        if len(graphs) != 1:
            raise ValueError(f"it holds {len(graphs)} graphs, but must hold one")
        self._read_graph(graphs[0])
        return self._folds and sum(self._counts.values()) <= self._most

    def _read_graph(self, graph: int | memoryview) -> None:
        nodes = []
        for number, value in self._fields(graph):
            if number == 1:
                nodes.append(value)
            elif number == 5:
                self._counts |= [self._tensor(value)]
            elif number == 15:
                raise ValueError("it has sparse tensors, which can unfold to any size")
        for node in nodes:
            self._read_node(node)

    def _read_node(self, node: int | memoryview) -> None:
        inputs, outputs, kind, domain, values = [], [], "", "", 1
        for number, value in self._fields(node):
            if number == 1:
                inputs.append(_text(value))
            elif number == 2:
                outputs.append(_text(value))
            elif number == 4:
                kind = _text(value)
            elif number == 7:
                domain = _text(value)
            elif number == 5:
                values = max(values, self._read_attribute(value))
        if domain in ("", "ai.onnx") and kind in ("Constant", "Shape", "Size"):
            count = values if kind == "Constant" else _RANK
        elif not (self._folds and inputs and all(name in self._counts for name in inputs)):
            return
        elif domain in ("", "ai.onnx") and kind in _SAME_SIZE:
            count = self._counts[inputs[0]]
        elif domain in ("", "ai.onnx") and kind in _BROADCAST:
            count = prod(self._counts[name] for name in inputs[:2])
        elif domain in ("", "ai.onnx") and kind == "Concat":
            count = sum(self._counts[name] for name in inputs)
        else:
            count = self._most + 1
        self._counts |= dict.fromkeys(outputs, count)
        self._folds &= count <= self._most

    def _read_attribute(self, attribute: int | memoryview) -> int:
        """The largest number of values of a constant with this attribute."""
        values = 0
        for number, value in self._fields(attribute):
            if number in (22, 23):
                raise ValueError("it has sparse tensors, which can unfold to any size")
            if number in (6, 11):  # the body of a loop or a branch
                self._folds = False
                self._read_graph(value)
            elif number == 5:
                values = self._tensor(value)[1]
            else:
                values += len(value) if isinstance(value, memoryview) else 1
        return values

    def _tensor(self, tensor: int | memoryview) -> tuple[str, int]:
        """Name and number of values."""
        name = ""
        sides: list[int] = []
        for number, value in self._fields(tensor):
            if number == 1:
                sides += [value] if isinstance(value, int) else islice(_integers(value), _RANK + 1)
                if len(sides) > _RANK:
                    raise ValueError(f"one of its tensors has more than {_RANK} axes")
            elif number == 8:
                name = _text(value)
        return name, min(prod(sides), self._most + 1)

    def _fields(self, message: int | memoryview) -> _Fields:
        """The numbers of the fields of a message, and their values: integers, or bytes."""
        if isinstance(message, int):
            raise ValueError("it is not an ONNX file, or it is damaged")
        at = 0
        while at < len(message):
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise ValueError(f"it has more than {MAX_ENTRIES} entries, far more than a network needs")
            key, at = _integer(message, at)
            kind = key & 7
            if kind == 0:
                value, at = _integer(message, at)
                yield key >> 3, value
                continue
            if kind == 2:
                size, at = _integer(message, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise ValueError("it is not an ONNX file, or it is damaged")
            if size > len(message) - at:
                raise ValueError("it is not an ONNX file, or it is cut off")
            yield key >> 3, message[at : at + size]
            at += size


def _integer(message: memoryview, at: int) -> tuple[int, int]:
    """The integer that begins at a place, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError("it is not an ONNX file, or it is cut off")


def _integers(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _integer(message, at)
        yield value


def _text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise ValueError("it is not an ONNX file, or it is damaged")
    return str(value, "utf-8", "replace")
