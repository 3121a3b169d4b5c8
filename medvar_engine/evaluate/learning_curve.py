"""How many patients a network learns from: 1, 2, 4 … of those that there are, and the metric with each number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.metric_table import MetricValue

REAL, BOTH, SYNTHETIC = "real", "real and synthetic", "synthetic"
"""What a network learned from."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The metric on held-out patients after learning from so many patients."""

    patients: int
    metrics: dict[str, MetricValue]  # `REAL` and `BOTH`


def patient_counts(available: int, asked: Sequence[int] = ()) -> tuple[int, ...]:
    """The numbers of patients to learn from, rising: those ``asked`` for, or 1, 2, 4 …; and always all of them.

    Raises `MedvarError` for a number that is below 1 or above ``available``.
    """
    if wrong := [count for count in asked if not 1 <= count <= available]:
        raise MedvarError(f"There are 1 to {available} training patients to learn from, not {wrong[0]}.")
    doubled = (2**power for power in range(available.bit_length()))
    return tuple(sorted({*(asked or doubled), available}))


def rows_of_patients(patients: Sequence[str], count: int, seed: int) -> npt.NDArray[np.int64]:
    """The numbers of the slices of ``count`` patients, drawn by ``seed``; a larger count draws the same and more."""
    names = sorted(set(patients))
    chosen = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[:count]}
    return np.flatnonzero([name in chosen for name in patients])
