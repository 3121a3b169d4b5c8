"""Learning curves: the metric of a network that learned from 1, 2, 4 … patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.metric_table import MetricValue
from medvar_engine.page.elements import counted

_Source = TypeVar("_Source")  # images of one kind to learn from

REAL, BOTH, SYNTHETIC = "real", "real and synthetic", "synthetic"
"""What a network learned from."""


Progress = Callable[[str, int, int], None]
"""Called with what is trained, the number of finished steps, and that of all."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The metric on held-out patients after learning from a number of patients."""

    patients: int
    metrics: dict[str, MetricValue]  # `REAL` and `BOTH`


def patient_counts(available: int, asked: Sequence[int] = ()) -> tuple[int, ...]:
    """The numbers of patients to learn from in rising order: those in ``asked``, or else 1, 2, 4 …; and all patients.

    Raises `MedvarError` for a number that is below 1 or above ``available``.
    """
    if wrong := [count for count in asked if not 1 <= count <= available]:
        raise MedvarError(f"The number of training patients must be from 1 to {available}, but is {wrong[0]}.")
    doubled = (2**power for power in range(available.bit_length()))
    return tuple(sorted({*(asked or doubled), available}))


def learn_from_each(
    measured: Callable[[str, Callable[[int], list[_Source]]], MetricValue],
    real: Callable[[int, int], _Source],
    synthetic: _Source,
    counts: Sequence[int],
    suffix: str = "",
) -> tuple[CurvePoint, ...]:
    """The metric after learning from real images of each number of patients, alone and with all synthetic ones.

    ``measured`` takes a name for progress, and the sources for a seed. ``real`` takes a number of patients, the last of
    ``counts`` being all, and a seed. ``suffix`` is added to the number of patients, as "of a class".
    """

    def point(count: int) -> CurvePoint:
        patients = f"{counted(count, 'patient')} {suffix}".strip()
        few = "" if count == counts[-1] else f" ({patients})"
        alone = measured(f"{REAL}{few}", lambda seed: [real(count, seed)])
        both = measured(f"{BOTH}{few}", lambda seed: [real(count, seed), synthetic])
        return CurvePoint(count, {REAL: alone, BOTH: both})

    return tuple(map(point, counts))


def rows_of_patients(patients: Sequence[str], count: int, seed: int) -> npt.NDArray[np.int64]:
    """The indices of the slices of ``count`` random patients; a larger count contains the same patients and more."""
    names = sorted(set(patients))
    chosen = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[:count]}
    return np.flatnonzero([name in chosen for name in patients])


def report_step(progress: Progress | None, what: str, total: int, done: int) -> None:
    """Report ``done`` of ``total`` steps of a network that learns from ``what``."""
    if progress is not None:
        progress(f"training on {what}", done, total)
