"""The message format of server and client: a line of JSON followed by arrays. It cannot contain code.

The line holds plain values and, under ``arrays``, the name, type and shape of each array. The numbers follow,
little-endian and in C order, in the order of the list. The line is padded with spaces to a multiple of 16 bytes, so
that arrays can be used without a copy. Messages can follow each other in one stream, because each contains its length.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.untrusted import plain_json

TYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int64": np.dtype("<i8")}
_MOST_ARRAYS = 8
_MOST_AXES = 8
_ALIGNED = 16
_LINE = 64 * 2**20  # bytes, because the lineage of traces can be long


@dataclass(frozen=True, eq=False, slots=True)
class Message:
    """Plain values and arrays. The arrays of a received message are read-only."""

    values: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]

    def array(self, name: str, dtype: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
        """One array, checked; None in ``shape`` accepts any length. Raises `MedvarError`, also for NaN and infinity."""
        array = self.arrays.get(name)
        if array is None:
            raise MedvarError(f"The message lacks the array {name!r}.")
        expected = " × ".join("any" if n is None else str(n) for n in shape)
        fits = len(array.shape) == len(shape) and all(
            b is None or a == b for a, b in zip(array.shape, shape, strict=True)
        )
        if array.dtype != TYPES[dtype] or not fits:
            raise MedvarError(
                f"The array {name!r} must be {dtype} of {expected}, but is {array.dtype} of "
                f"{' × '.join(map(str, array.shape))}."
            )
        if not np.isfinite(array).all():
            raise MedvarError(f"The array {name!r} must be finite, but contains NaN or infinity.")
        return array


class _Stream(Protocol):
    def readline(self, limit: int, /) -> bytes: ...
    def read(self, count: int, /) -> bytes: ...


def pack(values: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A message as bytes. Arrays must be float32 or int64."""
    listed, parts = [], []
    for name, array in arrays.items():
        kind = array.dtype.name
        listed.append([name, kind, list(array.shape)])
        parts.append(np.ascontiguousarray(array, dtype=TYPES[kind]).reshape(-1).view(np.uint8).data)
    line = json.dumps({**values, "arrays": listed}, separators=(",", ":"), allow_nan=False).encode()
    return b"".join([line, b" " * (-(len(line) + 1) % _ALIGNED), b"\n", *parts])


def unpack(content: bytes, *, line: int = _LINE) -> Message:
    """The inverse of `pack`. Raises `MedvarError` for anything that is not exactly one message.

    ``line`` is the largest size of the first line in bytes; parsing needs many times as much memory.
    """
    stream = io.BytesIO(content)
    message = read_message(stream, len(content), line=line)
    if message is None:
        raise _damaged("it is empty")
    if rest := len(content) - stream.tell():
        raise _damaged(f"{rest} bytes follow its arrays")
    return message


def read_message(stream: _Stream, limit: int, *, line: int = _LINE) -> Message | None:
    """The next message of a stream, with arrays of at most ``limit`` bytes; None at the end of the stream."""
    first = stream.readline(line)
    if not first:
        return None
    if not first.endswith(b"\n"):
        raise _damaged("it ends within its first line, or the line is too long")
    values, kinds = _parsed(first)
    lengths = [math.prod(shape) * dtype.itemsize for _, dtype, shape in kinds]
    if sum(lengths) > limit:
        raise _damaged(f"its arrays have {sum(lengths)} bytes, but {limit} are available or allowed")
    arrays = {}
    for (name, dtype, shape), length in zip(kinds, lengths, strict=True):
        content = stream.read(length)
        if len(content) != length:
            raise _damaged(f"it ends within the array {name!r}")
        arrays[name] = np.require(np.frombuffer(content, dtype=dtype).reshape(shape), requirements="A")
    return Message(values, arrays)


def _parsed(line: bytes) -> tuple[dict[str, Any], list[tuple[str, np.dtype[Any], tuple[int, ...]]]]:
    try:
        values = plain_json.loads(line)
        kinds = [(str(name), TYPES[kind], tuple(shape)) for name, kind, shape in values.pop("arrays")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(f"its first line is invalid: {error!r}") from error
    if len(kinds) > _MOST_ARRAYS or len({name for name, _, _ in kinds}) < len(kinds):
        raise _damaged(f"it lists more than {_MOST_ARRAYS} arrays, or one twice")
    for name, _, shape in kinds:
        if len(shape) > _MOST_AXES or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
            raise _damaged(f"the shape of the array {name!r} is invalid")
    return values, kinds


def _damaged(why: str) -> MedvarError:
    return MedvarError(f"This is not a message of `medvar serve`, or it is damaged: {why}.")
