"""Figures on held-out patients, overall and by region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medvar_engine.conditions import Condition


class Scores:
    """One number an image and figure, gathered batch by batch."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, name: str, values: Tensor, conditions: Sequence[Condition]) -> None:
        """``values`` ``(B,)`` of images of these conditions."""
        for value, condition in zip(values.tolist(), conditions, strict=True):
            for key in (f"held_out_{name}", f"{name}_{condition.modality}_{condition.region}"):
                self._values.setdefault(key, []).append(value)

    def means(self) -> dict[str, float]:
        """``held_out_NAME`` of all images, ``NAME_MODALITY_REGION`` of those of a region."""
        overall_first = sorted(self._values, key=lambda key: (not key.startswith("held_out_"), key))
        return {key: float(np.mean(self._values[key])) for key in overall_first}


def codes_used(counts: Tensor) -> dict[str, float]:
    """How many codes each scale and all of them use, and the entropy of the choice in bits; ``counts`` ``(K, V)``."""
    figures: dict[str, float] = {}
    for name, count in [*((f"_scale_{k}", count) for k, count in enumerate(counts)), ("", counts.sum(0))]:
        share = count[count > 0].double() / count.sum()
        figures[f"codes_used{name}"] = float(len(share))
        figures[f"code_entropy{name}"] = float(-(share * torch.log2(share)).sum())
    return figures
