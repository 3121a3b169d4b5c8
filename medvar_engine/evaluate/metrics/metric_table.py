"""The metrics of a set of images against the training slices, by one encoder: one row of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.authenticity import authentic, copying_by_cells
from medvar_engine.evaluate.metrics.bootstrap import (
    Estimate,
    estimate,
    estimate_around,
    estimate_distance,
    estimate_mean,
    group_weights,
)
from medvar_engine.evaluate.metrics.coverage import Neighbourhoods, neighbourhoods
from medvar_engine.evaluate.metrics.feature_rows import FeatureRows, Features
from medvar_engine.evaluate.metrics.frechet import Moments, frechet_distance_to, moments
from medvar_engine.evaluate.metrics.kernel import cmmd, cmmd_draws, kernel_distance, kernel_draws
from medvar_engine.types import FloatArray, IntArray

_Found = TypeVar("_Found")

DRAWS = 100  # bootstrap draws, for metrics that are computed again for each draw
# largest number of images of a side for metrics that compare all pairs; more would take hours with little benefit
LARGEST = 4000

BETTER = {  # whether high or low values are better
    "frechet": "lower",
    "kid": "lower",
    "cmmd": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "authentic": "near 0.5",
    "copying": "near 0",
}


@dataclass(frozen=True, slots=True)
class MetricValue:
    """The value of a metric with its interval, or the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    missing: str = ""  # reason for a missing value
    images: int = 0  # number of evaluated images that were used
    over: str = ""  # what was resampled for the interval
    no_interval: str = ""  # reason for a missing interval

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Features ``(N, D)`` of the training slices and the held-out slices, by one encoder."""

    training: Features
    held_out: Features
    patients: Sequence[str]  # patient of each training slice
    training_moments: Moments

    @classmethod
    def of(cls, training: Features, held_out: Features, patients: Sequence[str]) -> Reference:
        """Compute the moments that every row is compared with."""
        return cls(training, held_out, patients, moments(training))


def row(
    features: Features, groups: Sequence[str], reference: Reference, *, over: str = "images", seed: int = 0
) -> dict[str, MetricValue]:
    """All metrics of images with features ``(M, D)``, each with a 95 % bootstrap interval.

    ``groups`` is the group of each image, and ``over`` the name of what a group is; groups are resampled. For recall
    and coverage, which are shares of training slices, training patients are resampled. Raises `MedvarError` when the
    number of groups is not that of the images.
    """
    if len(groups) != len(features):
        raise MedvarError(f"Every image needs a group, but there are {len(features)} images and {len(groups)} groups.")
    (few, names), (train, patients) = _some(features, groups, seed), _some(reference.training, reference.patients, seed)
    held_out, _ = _some(reference.held_out, range(len(reference.held_out)), seed)

    def kernel(value: Callable[[], float], draws: Callable[..., Any], lowest: float) -> Estimate:
        found = value()  # first, because it reports what is wrong with the images
        return estimate_around(found, draws(few, train, group_weights(names, draws=DRAWS, seed=seed)), lowest=lowest)

    def kid() -> Estimate:
        return kernel(
            lambda: kernel_distance(few, train, subset_size=500, subsets=50, seed=seed)[0], kernel_draws, -np.inf
        )

    def copying() -> Estimate:
        score = copying_by_cells(train, held_out, few, seed=seed)
        if score(np.arange(len(few))) is None:
            raise MedvarError("No cell has enough images.")
        return estimate(lambda index: _or_nan(score(index)), names, draws=DRAWS, seed=seed)

    near = _tried(lambda: neighbourhoods(train, few))
    metrics = {
        "frechet": _metric(lambda: _frechet(features, groups, reference.training_moments, seed), over),
        "kid": _metric(kid, over),
        "cmmd": _metric(lambda: kernel(lambda: cmmd(few, train), cmmd_draws, 0.0), over),
        "precision": _mean(near, "precise", names, over, seed),
        "recall": _mean(near, "recalled", patients, "training patients", seed),
        "density": _mean(near, "dense", names, over, seed),
        "coverage": _mean(near, "covered", patients, "training patients", seed),
        "authentic": _metric(lambda: estimate_mean(authentic(train, few), names, seed=seed), over),
        "copying": _metric(copying, over),
    }
    images = {"frechet": len(features)}
    return {name: replace(metric, images=images.get(name, len(few))) for name, metric in metrics.items()}


def shown(found: Estimate, over: str) -> MetricValue:
    """An estimate for a table. An interval of zero width is omitted, because it would suggest certainty."""
    if found.low is None or found.high is None:
        return MetricValue(found.value, no_interval=f"fewer than two {over} to resample")
    if not found.low < found.high:
        return MetricValue(found.value, no_interval="the same in every draw")
    return MetricValue(found.value, found.low, found.high, over=over)


def _frechet(features: Features, groups: Sequence[str], reference: Moments, seed: int) -> Estimate:
    to_reference = frechet_distance_to(reference)

    def distance(index: IntArray) -> float:
        return to_reference(FeatureRows(features, np.sort(index)))

    return estimate_distance(distance, groups, draws=DRAWS, seed=seed)


def _mean(near: Neighbourhoods | str, name: str, groups: Sequence[str], over: str, seed: int) -> MetricValue:
    if isinstance(near, str):
        return MetricValue(None, missing=near)
    return shown(estimate_mean(getattr(near, name), groups, seed=seed), over)


def _metric(compute: Callable[[], Estimate], over: str) -> MetricValue:
    found = _tried(compute)
    return MetricValue(None, missing=found) if isinstance(found, str) else shown(found, over)


def _tried(compute: Callable[[], _Found]) -> _Found | str:
    """The result of ``compute``, or the message of its `MedvarError`."""
    try:
        return compute()
    except MedvarError as error:
        return str(error)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _some(features: Features, names: Sequence[Any], seed: int) -> tuple[FloatArray, list[Any]]:
    """At most `LARGEST` random rows, with their names."""
    if len(features) <= LARGEST:
        return np.asarray(features), list(names)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:LARGEST])
    return np.asarray(features[chosen]), [names[i] for i in chosen]
