"""The inputs of scales as chunks of a prefix state, by which server and client identify a prefix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvar_engine.backends.base import PrefixState, gather_rows
from medvar_engine.types import FloatArray


def extended(state: PrefixState, scale_features: FloatArray | None, channels: int) -> PrefixState:
    """``state`` extended by the input of its next scale; chunks are inputs of scales. See `Backend.step`."""
    return state.longer(first_input(len(state.labels), channels) if scale_features is None else scale_features)


def gather_inputs(rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
    """`Backend.gather` for states with inputs of scales as chunks."""
    return gather_rows(rows, lambda chunks: np.stack([chunk[row] for chunk, row in chunks]))


def first_input(rows: int, channels: int) -> FloatArray:
    """The input of scale 0, ``(rows, 0, channels)``: it has no tokens, because it depends on the condition only."""
    return np.zeros((rows, 0, channels), dtype=np.float32)
