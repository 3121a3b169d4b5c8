"""One row of figures for a set of images, against the training slices, in the eyes of one encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from medvar_engine.arrays import FloatArray
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.authenticity import authentic_share, copying_score
from medvar_engine.evaluate.bootstrap import Estimate, estimate_distance
from medvar_engine.evaluate.coverage import coverage
from medvar_engine.evaluate.frechet import Moments, frechet_distance_to, moments
from medvar_engine.evaluate.kernel import cmmd, kernel_distance

_Found = TypeVar("_Found")

DRAWS = 100  # of the bootstrap
LARGEST = 4000  # images of a side in figures that compare all pairs; more would take hours and tell no more

BETTER = {  # which way a figure is better
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
class Figure:
    """A figure with its interval; or why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    missing: str = ""
    images: int = 0  # of the set that is judged, that it is computed of

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Features ``(N, D)`` of the training slices and of people held out, in the eyes of one encoder."""

    training: FloatArray
    held_out: FloatArray
    training_moments: Moments

    @classmethod
    def of(cls, training: FloatArray, held_out: FloatArray) -> Reference:
        """With the moments that every row is compared with."""
        return cls(training, held_out, moments(training))


def row(features: FloatArray, groups: Sequence[str], reference: Reference, *, seed: int = 0) -> dict[str, Figure]:
    """All figures of images with these features ``(M, D)``. ``groups`` says which images belong together.

    The Fréchet distance has an interval over groups, KID twice the spread over its subsets on both sides, where these
    differ. Raises `MedvarError` when not every image has its group.
    """
    if len(groups) != len(features):
        raise MedvarError(f"Every image has a group, but there are {len(features)} images and {len(groups)} groups.")
    few, train, held_out = (_some(f, seed) for f in (features, reference.training, reference.held_out))
    shares = _tried(lambda: coverage(train, few))
    figures = {
        "frechet": _frechet(features, groups, reference.training_moments, seed),
        "kid": _kid(few, train, seed),
        "cmmd": _figure(lambda: cmmd(few, train)),
        **{
            name: Figure(getattr(shares, name)) if not isinstance(shares, str) else Figure(None, missing=shares)
            for name in ("precision", "recall", "density", "coverage")
        },
        "authentic": _figure(lambda: authentic_share(train, few)),
        "copying": _figure(lambda: copying_score(train, held_out, few, seed=seed)),
    }
    images = {"frechet": len(features)}
    return {name: replace(figure, images=images.get(name, len(few))) for name, figure in figures.items()}


def _frechet(features: FloatArray, groups: Sequence[str], reference: Moments, seed: int) -> Figure:
    def compute() -> Estimate:
        to_reference = frechet_distance_to(reference)
        return estimate_distance(lambda index: to_reference(features[np.sort(index)]), groups, draws=DRAWS, seed=seed)

    found = _tried(compute)
    return Figure(found.value, found.low, found.high) if isinstance(found, Estimate) else Figure(None, missing=found)


def _kid(features: FloatArray, training: FloatArray, seed: int) -> Figure:
    found = _tried(lambda: kernel_distance(features, training, subset_size=500, subsets=50, seed=seed))
    if isinstance(found, str):
        return Figure(None, missing=found)
    mean, spread = found
    if not spread:  # one subset, of everything: that says nothing of how far it may be off
        return Figure(mean)
    return Figure(mean, mean - 2 * spread, mean + 2 * spread)


def _figure(compute: Callable[[], float | None]) -> Figure:
    found = _tried(compute)
    if found is None:
        return Figure(None, missing="no cell has enough images")
    return Figure(None, missing=found) if isinstance(found, str) else Figure(found)


def _tried(compute: Callable[[], _Found]) -> _Found | str:
    """What was computed, or why not."""
    try:
        return compute()
    except MedvarError as error:
        return str(error)


def _some(features: FloatArray, seed: int) -> FloatArray:
    if len(features) <= LARGEST:
        return np.asarray(features)
    chosen = np.random.default_rng(seed).permutation(len(features))[:LARGEST]
    return np.asarray(features[np.sort(chosen)])
