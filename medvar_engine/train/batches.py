"""Which slices a batch holds: rare kinds of slice are drawn more often than their number would have it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from medvar_engine.data.dataset import Conditions, SliceDataset
from medvar_engine.errors import MedvarError


class BalancedSampler:
    """Draws indices with replacement; a cell is one modality × region × plane.

    ``balance`` 0 draws every slice alike, 1 every cell alike.
    """

    def __init__(self, conditions: Conditions, balance: float) -> None:
        cells = [(c.modality, c.region, c.plane) for c in conditions.kinds]
        sizes: Counter[tuple[str | None, ...]] = Counter()
        for cell, slices in zip(cells, np.bincount(conditions.codes).tolist(), strict=True):
            sizes[cell] += slices
        weights = np.array([sizes[cell] ** -balance for cell in cells], dtype=np.float64)[conditions.codes]
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """``count`` indices."""
        index = np.searchsorted(self._cumulative, rng.random(count), side="right")
        return np.minimum(index, len(self._cumulative) - 1)


def check_size(data: SliceDataset, image_size: int) -> None:
    """Raises `MedvarError` when slices are not of the size that the model takes."""
    if data.size != image_size:
        raise MedvarError(
            f"{data.folder} holds slices of {data.size}×{data.size} pixels, but the model takes "
            f"{image_size}×{image_size}. Prepare the data again with that size, or choose another preset."
        )


def spread(total: int, count: int) -> npt.NDArray[np.int64]:
    """At most ``count`` of ``total`` indices, evenly spread and always the same."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
