"""Checks of tokens and of the outputs of graphs, which may come from untrusted bundles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medvar_engine.backends.base import BackendInfo
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray, IntArray

_KINDS = {"f": "floating-point numbers", "i": "integers"}


def check_tokens(info: BackendInfo, tokens: IntArray) -> None:
    """Check that tokens of any shape are within the vocabulary. Raises `MedvarError` otherwise."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < info.vocabulary:
        raise MedvarError(
            f"Tokens must be within 0…{info.vocabulary - 1}, but their range is {tokens.min()}…{tokens.max()}."
        )


def check_outputs(
    graph: str, outputs: Sequence[Any], wanted: dict[str, tuple[int, ...]], kind: str = "f"
) -> Sequence[Any]:
    """The first outputs of a graph, as many as are ``wanted``: what each one is, for the message, and its shape.

    Outputs are arrays, or OrtValues on a device. Raises `MedvarError` unless each has exactly its shape, and numbers of
    ``kind``: ``f`` for floating point, ``i`` for integers.
    """
    if len(outputs) < len(wanted):
        raise odd_output(graph, f"{len(outputs)} outputs instead of {len(wanted)}")
    for (name, shape), output in zip(wanted.items(), outputs, strict=False):
        own = _kind_and_shape(output)
        if own is None or own[0] != kind:
            raise odd_output(graph, f"{name} that are not an array of {_KINDS[kind]}")
        if own[1] != shape:
            raise odd_output(graph, f"{name} of shape {own[1]} instead of {shape}")
    return outputs[: len(wanted)]


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


def _kind_and_shape(output: Any) -> tuple[str, tuple[int, ...]] | None:
    """The kind of numbers and the shape of an array or an OrtValue; None for anything else."""
    if isinstance(output, np.ndarray):
        return output.dtype.kind, output.shape
    on_device = callable(getattr(output, "data_type", None)) and output.data_type() == "tensor(float)"
    return ("f", tuple(output.shape())) if on_device else None
