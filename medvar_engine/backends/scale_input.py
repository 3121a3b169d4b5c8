"""The input of one scale as one array, which a server and its clients know a prefix by."""

from __future__ import annotations

import numpy as np

from medvar_engine.arrays import FloatArray, IntArray


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
