"""Small ONNX graphs that join, gather and average keys and values, the same for every model.

They are written byte by byte, because the package ``onnx`` is installed for export only. ONNX files are messages of
Protocol Buffers (protobuf.dev, "Encoding"); the field numbers are those of ``onnx.proto`` (onnx.ai).
"""

from __future__ import annotations

from collections.abc import Sequence

_IR_VERSION, _OPSET = 10, 13  # opset 13 is the last one in which the axes of a mean are an attribute
_FLOAT32, _INT64 = 1, 7
_AXES = {_FLOAT32: 6, _INT64: 1}  # number of axes: keys and values (depth, 2, B, heads, L, d), and a list of rows
_ROWS, _TOKENS = 2, 4


def join_graph(count: int) -> bytes:
    """Graph: keys and values ``scale_0``… of ``count`` scales → ``joined``, concatenated over tokens."""
    scales = [f"scale_{i}" for i in range(count)]
    joined = _node("Concat", scales, "joined", _integer("axis", _TOKENS))
    return _model([joined], dict.fromkeys(scales, _FLOAT32), "joined", 6)


def gather_graph(count: int) -> bytes:
    """Graph: keys and values ``source_0``… of ``count`` batches and rows of each ``rows_0``… (int64) → ``gathered``."""
    each, along = range(count), _integer("axis", _ROWS)
    picked = [_node("Gather", [f"source_{i}", f"rows_{i}"], f"picked_{i}", along) for i in each]
    gathered = _node("Concat", [f"picked_{i}" for i in each], "gathered", along)
    inputs = {f"source_{i}": _FLOAT32 for i in each} | {f"rows_{i}": _INT64 for i in each}
    return _model([*picked, gathered], inputs, "gathered", 6)


def average_graph() -> bytes:
    """Graph: keys and values ``scale`` → ``average`` over tokens, ``(depth, 2, B, heads, d)``."""
    average = _node("ReduceMean", ["scale"], "average", _integers("axes", _TOKENS), _integer("keepdims", 0))
    return _model([average], {"scale": _FLOAT32}, "average", 5)


def _model(nodes: Sequence[bytes], inputs: dict[str, int], output: str, axes: int) -> bytes:
    """A graph with a float32 output of ``axes`` axes."""
    graph = b"".join(_message(1, node) for node in nodes) + _text(2, output)
    graph += b"".join(_message(11, _tensor(name, kind, _AXES[kind])) for name, kind in inputs.items())
    graph += _message(12, _tensor(output, _FLOAT32, axes))
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, _number(2, _OPSET))


def _node(operator: str, inputs: Sequence[str], output: str, *attributes: bytes) -> bytes:
    names = b"".join(_text(1, name) for name in inputs) + _text(2, output)
    return names + _text(4, operator) + b"".join(_message(5, attribute) for attribute in attributes)


def _integer(name: str, value: int) -> bytes:
    """An integer attribute."""
    return _text(1, name) + _number(3, value) + _number(20, 2)


def _integers(name: str, value: int) -> bytes:
    """An attribute that is a list of one integer."""
    return _text(1, name) + _number(8, value) + _number(20, 7)


def _tensor(name: str, kind: int, axes: int) -> bytes:
    """Name and type of a tensor of unspecified shape."""
    shape = _message(1, b"") * axes
    return _text(1, name) + _message(2, _message(1, _number(1, kind) + _message(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A variable-length integer: seven bits per byte, lowest first; the eighth bit says that more bytes follow."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)
