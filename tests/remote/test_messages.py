"""What a server and its clients send each other."""

from __future__ import annotations

import io
import json

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as some
import numpy as np
import pytest
from hypothesis import given

from medvar_engine.errors import MedvarError
from medvar_engine.remote.messages import pack, read_message, unpack


@given(some.dictionaries(some.text(), some.integers(), max_size=3), some.data())
def test_arrays_arrive_bit_by_bit(values: dict[str, int], data: some.DataObject) -> None:
    """An image made on a server would differ from the same one made here."""
    values.pop("arrays", None)
    kinds = some.sampled_from([np.float32, np.int64])
    sent = data.draw(
        some.dictionaries(some.text(), arrays.arrays(kinds, arrays.array_shapes(min_dims=0, min_side=0)), max_size=4)
    )
    got = unpack(pack(values, sent))
    assert got.values == values
    assert [(name, a.dtype, a.shape, a.tobytes()) for name, a in got.arrays.items()] == [
        (name, a.dtype, a.shape, a.tobytes()) for name, a in sent.items()
    ]


def test_messages_follow_each_other_in_a_stream() -> None:
    """Scales that are streamed would run into one another."""
    one, two = {"a": np.arange(3)}, {"b": np.ones((2, 2), dtype=np.float32)}
    stream = io.BytesIO(pack({"scale": 0}, one) + pack({"scale": 1}, two))
    first, second = read_message(stream, 100), read_message(stream, 100)
    assert first
    assert second
    assert (first.values["scale"], second.values["scale"]) == (0, 1)
    np.testing.assert_array_equal(first.arrays["a"], one["a"])
    np.testing.assert_array_equal(second.arrays["b"], two["b"])
    assert read_message(stream, 100) is None


@given(some.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes) -> None:
    """A client that sends garbage would see, or cause, a traceback."""
    with pytest.raises(MedvarError):
        unpack(content)


def line(arrays: object, **more: object) -> bytes:
    return json.dumps({"arrays": arrays, **more}).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        line([["a", "object", [1]]]) + bytes(8),
        line([["a", "float32", [2]]]) + bytes(4),
        line([["a", "float32", [1]]]) + bytes(5),
        line([["a", "float32", [-1]]]),
        line([["a", "float32", [-1, -1]]]) + bytes(4),
        line([["a", "float32", [True]]]) + bytes(4),
        line([["a", "float32", [1.0]]]) + bytes(4),
        line([["a", "float32", [2**62, 4, 0]]]),
        line([["a", "float32", [2**30, 2**30]]]),
        line([["a", "float32", [1] * 40]]) + bytes(4),
        line([["a", "float32", [1]]] * 2) + bytes(8),
        line([[f"a{n}", "float32", [0]] for n in range(9)]),
        line([["a", ["float32"], [1]]]) + bytes(4),
        line({"a": 1}),
        line(3),
    ],
)
def test_wrong_descriptions_of_arrays_are_refused(content: bytes) -> None:
    """A server would set aside memory without end, or read beyond a message."""
    with pytest.raises(MedvarError, match="not a message of `medvar serve`"):
        unpack(content)


def test_what_an_array_must_be_is_checked() -> None:
    """NaN or another shape would go into the networks."""
    message = unpack(pack({}, {"a": np.zeros((2, 3), dtype=np.float32), "b": np.array([np.inf], dtype=np.float32)}))
    assert message.array("a", "float32", (None, 3)).shape == (2, 3)
    for name, kind, shape in [("a", "float32", (3, 3)), ("a", "float32", (2,)), ("a", "int64", (2, 3))]:
        with pytest.raises(MedvarError, match="must be"):
            message.array(name, kind, shape)
    with pytest.raises(MedvarError, match="lacks the array 'c'"):
        message.array("c", "float32", ())
    with pytest.raises(MedvarError, match="finite"):
        message.array("b", "float32", (1,))
