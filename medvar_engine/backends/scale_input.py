"""The input of one scale as one array, which a server and its clients know a prefix by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvar_engine.arrays import FloatArray, IntArray
from medvar_engine.backends.base import PrefixState, gather_rows


def extended(state: PrefixState, maps: FloatArray | None, positions: IntArray | None, channels: int) -> PrefixState:
    """``state``, whose chunks are inputs of scales, and the input of its next one; see `Backend.step`."""
    if maps is None:
        maps = first_input(len(state.labels), channels)
    return state.longer(joined(maps, positions))


def gather_inputs(rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
    """`Backend.gather` of states whose chunks are inputs of scales."""
    return gather_rows(rows, lambda chunks: np.stack([chunk[row] for chunk, row in chunks]))


def first_input(rows: int, channels: int) -> FloatArray:
    """That of scale 0, ``(rows, 0, channels)``: it has no tokens, for the condition is all that it follows from."""
    return np.zeros((rows, 0, channels), dtype=np.float32)


def joined(maps: FloatArray, positions: IntArray | None) -> FloatArray:
    """``maps`` ``(B, L_k, C)``; of some tokens ``(B, L, C + 1)``, where a last channel holds their ``positions``."""
    return maps if positions is None else np.concatenate([maps, positions[:, :, None].astype(np.float32)], axis=2)


def parted(chunk: FloatArray, channels: int) -> tuple[FloatArray, IntArray | None]:
    """The inverse of `joined`, for features of so many ``channels``."""
    if chunk.shape[2] == channels:
        return np.ascontiguousarray(chunk), None
    return np.ascontiguousarray(chunk[:, :, :channels]), chunk[:, :, channels].astype(np.int64)


def every_position(chunk: FloatArray, channels: int) -> FloatArray:
    """``chunk`` with a last channel of positions, also where it holds all of a scale."""
    if chunk.shape[2] > channels:
        return chunk
    return joined(chunk, np.broadcast_to(np.arange(chunk.shape[1]), chunk.shape[:2]))
