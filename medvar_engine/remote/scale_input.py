"""The input of one scale as one array, which a server and its clients know a prefix by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvar_engine.backends.base import PrefixState, gather_rows
from medvar_engine.types import FloatArray


def extended(state: PrefixState, scale_features: FloatArray | None, channels: int) -> PrefixState:
    """``state``, whose chunks are inputs of scales, and the input of its next one; see `Backend.step`."""
    return state.longer(first_input(len(state.labels), channels) if scale_features is None else scale_features)


def gather_inputs(rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
    """`Backend.gather` of states whose chunks are inputs of scales."""
    return gather_rows(rows, lambda chunks: np.stack([chunk[row] for chunk, row in chunks]))


def first_input(rows: int, channels: int) -> FloatArray:
    """That of scale 0, ``(rows, 0, channels)``: it has no tokens, for the condition is all that it follows from."""
    return np.zeros((rows, 0, channels), dtype=np.float32)
