"""Metrics on held-out patients, overall and by region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medvar_engine.conditions import Condition
from medvar_engine.metric_log import Metric


class Scores:
    """Collects one value for each image and metric, batch by batch."""

    def __init__(self) -> None:
        self._values: dict[Metric, list[float]] = {}

    def add(self, name: str, values: Tensor, conditions: Sequence[Condition]) -> None:
        """Add the values ``(B,)`` of images with these conditions."""
        for value, condition in zip(values.tolist(), conditions, strict=True):
            for region in ("", f"{condition.modality} {condition.region}"):
                self._values.setdefault(Metric(name, "held_out", region=region), []).append(value)

    def means(self) -> dict[Metric, float]:
        """The means over all images, and over the images of each region."""
        overall_first = sorted(self._values, key=lambda metric: (metric.region, metric.name))
        return {metric: float(np.mean(self._values[metric])) for metric in overall_first}


def codes_used(counts: Tensor) -> dict[Metric, float]:
    """The number of used codes per scale and overall, and the entropy of their use in bits; ``counts`` ``(K, V)``."""
    metrics: dict[Metric, float] = {}
    for scale, count in [*enumerate(counts), (None, counts.sum(0))]:
        share = count[count > 0].double() / count.sum()
        metrics[Metric("codes_used", "held_out", scale)] = float(len(share))
        metrics[Metric("code_entropy", "held_out", scale)] = float(-(share * torch.log2(share)).sum())
    return metrics
