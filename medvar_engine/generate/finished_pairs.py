"""Finished images with their masks, if the model makes masks."""

from __future__ import annotations

from collections.abc import Sequence

from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.masks.structures import MaskArray
from medvar_engine.types import FloatArray


def finished_pairs(generator: Generator, generation: Generation) -> tuple[FloatArray, Sequence[MaskArray | None]]:
    """Images ``(B, H, W)`` of a finished generation, and a mask ``(H, W)`` or None for each."""
    if not generator.backend.info.structures:
        images = generator.image(generation)
        return images, [None] * len(images)
    pairs = generator.pairs(generation)
    return pairs[0], list(pairs[1])
