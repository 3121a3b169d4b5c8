"""What graphs of strangers give, and tokens, checked before anybody relies on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medvar_engine.backends.base import BackendInfo
from medvar_engine.errors import MedvarError
from medvar_engine.types import FloatArray, IntArray


def check_tokens(info: BackendInfo, tokens: IntArray) -> None:
    """Tokens of any shape are within the vocabulary."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < info.vocabulary:
        raise MedvarError(
            f"Tokens must be within 0…{info.vocabulary - 1}, but range over {tokens.min()}…{tokens.max()}."
        )


def check_outputs(graph: str, outputs: Sequence[Any], count: int) -> Sequence[Any]:
    """The ``count`` outputs of a graph, which are arrays of numbers of at least one axis. Raises `MedvarError`."""
    if len(outputs) < count:
        raise odd_output(graph, f"{len(outputs)} outputs in place of {count}")
    for one in outputs[:count]:
        if not isinstance(one, np.ndarray) or one.dtype.kind not in "fiu" or not one.ndim:
            raise odd_output(graph, "text, or something else that is no array of numbers")
    return outputs[:count]


def check_masks(graph: str, info: BackendInfo, images: FloatArray) -> None:
    """Of decoded pairs ``(B, channels, H, W)`` the last channel holds numbers of structures, 0 for none."""
    if not info.structures:
        return
    numbers = images[:, info.image_channels]
    if numbers.size and (numbers.min() < 0 or numbers.max() > len(info.structures) or (numbers % 1 != 0).any()):
        raise odd_output(graph, f"masks that are not numbers from 0 to {len(info.structures)}")


def odd_output(graph: str, what: str) -> MedvarError:
    """What to say of a graph whose outputs are not those of its bundle's manifest."""
    return MedvarError(f"{graph} of the bundle gives {what}: it is not the graph that its bundle.json describes.")
