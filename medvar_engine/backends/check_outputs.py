"""Checks of tokens and of the outputs of graphs, which may come from untrusted bundles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medvar_engine.backends.base import BackendInfo
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray, IntArray


def check_tokens(info: BackendInfo, tokens: IntArray) -> None:
    """Check that tokens of any shape are within the vocabulary. Raises `MedvarError` otherwise."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < info.vocabulary:
        raise MedvarError(
            f"Tokens must be within 0…{info.vocabulary - 1}, but their range is {tokens.min()}…{tokens.max()}."
        )


def check_outputs(graph: str, outputs: Sequence[Any], count: int) -> Sequence[Any]:
    """The ``count`` outputs of a graph. Raises `MedvarError` unless all are numeric arrays with at least one axis."""
    if len(outputs) < count:
        raise odd_output(graph, f"{len(outputs)} outputs instead of {count}")
    for one in outputs[:count]:
        if not isinstance(one, np.ndarray) or one.dtype.kind not in "fiu" or not one.ndim:
            raise odd_output(graph, "text, or something else that is not an array of numbers")
    return outputs[:count]


def check_masks(graph: str, info: BackendInfo, images: FloatArray) -> None:
    """Check that the last channel of decoded pairs ``(B, channels, H, W)`` holds numbers of structures, 0 for none."""
    if not info.structures:
        return
    numbers = images[:, info.image_channels]
    if numbers.size and (numbers.min() < 0 or numbers.max() > len(info.structures) or (numbers % 1 != 0).any()):
        raise odd_output(graph, f"masks that are not numbers from 0 to {len(info.structures)}")


def odd_output(graph: str, what: str) -> MedvarError:
    """The error for a graph with other outputs than the manifest of its bundle describes."""
    return MedvarError(f"{graph} of the bundle returns {what}: it is not the graph that bundle.json describes.")
