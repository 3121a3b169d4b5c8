"""Fréchet distance between two sets of features, each modelled as a Gaussian (FID, arXiv 1706.08500).

It is computed from moments, which are accumulated over a few thousand images at a time, so memory does not grow with
the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.check_features import check_comparable
from medvar_engine.evaluate.metrics.feature_rows import FeatureRows, Features

Doubles = npt.NDArray[np.float64]

_ROWS = 4096
_SIZES = 8  # number of subset sizes for the extrapolation


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Number, mean ``(D,)`` and sum of squared deviations ``(D, D)`` of rows."""

    count: int
    mean: Doubles
    scatter: Doubles

    def __add__(self, other: Moments) -> Moments:
        """The moments of the rows of both."""
        count = self.count + other.count
        apart = other.mean - self.mean
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Doubles:
        """The unbiased covariance ``(D, D)``."""
        return self.scatter / (self.count - 1)


def moments(features: Features) -> Moments:
    """The moments of features ``(N, D)``. Raises `MedvarError` when a value is not finite or N is 0."""
    if not len(features):
        raise MedvarError("Moments need at least 1 image, but there are none.")
    return reduce(Moments.__add__, _moments_of_parts(features))


def _moments_of_parts(features: Features) -> Iterator[Moments]:
    for first in range(0, len(features), _ROWS):
        part = features[first : first + _ROWS]  # read once, because the rows may be scattered over the disk
        check_comparable(part)
        rows = np.asarray(part, dtype=np.float64)
        mean = rows.mean(axis=0)
        yield Moments(len(rows), mean, (rows - mean).T @ (rows - mean))


def frechet_distance(ours: Moments, theirs: Moments) -> float:
    """``|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)``; 0 for equal moments.

    Raises `MedvarError` for fewer than 2 rows on a side, or different D.
    """
    _check_enough(ours.count, theirs.count)
    _check_same_encoder(len(ours.mean), theirs)
    return _distance_of_moments(ours, theirs, _factor(theirs.covariance))


def frechet_distance_to(reference: Moments) -> Callable[[Features], float]:
    """A function that computes `frechet_distance` of rows ``(N, D)`` to ``reference``, e.g. for bootstrap draws.

    The reference is factored once; with fewer rows than dimensions, only a matrix ``(N, N)`` remains to be decomposed.
    """
    _check_enough(reference.count)
    factor = _factor(reference.covariance)
    spread = float(np.trace(reference.covariance))

    def distance(features: Features) -> float:
        _check_enough(len(features))
        if len(features) >= factor.shape[1]:
            ours = moments(features)
            _check_same_encoder(len(ours.mean), reference)
            return _distance_of_moments(ours, reference, factor)
        few = np.asarray(features)
        check_comparable(few)
        _check_same_encoder(few.shape[1], reference)
        rows = np.asarray(few, dtype=np.float64)
        apart = rows.mean(axis=0) - reference.mean
        rows = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
        seen = rows @ factor
        return _distance(apart, float((rows * rows).sum()) + spread, seen @ seen.T)

    return distance


def _distance_of_moments(ours: Moments, theirs: Moments, factor: Doubles) -> float:
    covariance = ours.covariance
    spread = float(np.trace(covariance) + np.trace(theirs.covariance))
    return _distance(ours.mean - theirs.mean, spread, factor.T @ covariance @ factor)


def _distance(apart: Doubles, spread: float, shared: Doubles) -> float:
    """The distance; ``shared`` is symmetric and has the non-zero eigenvalues of ``C1 C2``, which are not negative."""
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(shared), 0)).sum()
    return float(max(0.0, apart @ apart + spread - 2 * overlap))


def _factor(covariance: Doubles) -> Doubles:
    """F ``(D, R)`` such that ``F Fᵀ`` is the covariance of rank R; directions of rounding errors are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(values[-1], 0) * len(values) * np.finfo(np.float64).eps
    factor: Doubles = vectors[:, kept] * np.sqrt(values[kept])
    return factor


def _check_enough(*counts: int) -> None:
    if min(counts) < 2:
        raise MedvarError("A Fréchet distance needs at least 2 images on both sides.")


def _check_same_encoder(dimension: int, reference: Moments) -> None:
    if dimension != len(reference.mean):
        raise MedvarError(
            f"Features with {dimension} and {len(reference.mean)} numbers do not come from the same encoder."
        )


@dataclass(frozen=True, slots=True)
class SampleSizeBias:
    """The bias of the distance for small numbers of images, and its extrapolation."""

    sizes: tuple[int, ...]
    distances: tuple[float, ...]
    unbiased: float  # extrapolated to an infinite number of images (arXiv 1911.07023)


def sample_size_bias(ours: Features, theirs: Moments, *, seed: int = 0) -> SampleSizeBias | None:
    """The distance of subsets of ``ours`` ``(N, D)``, and the value at 1/N = 0 of a line fitted to it.

    None below 64 images, for which the fit is not reliable.
    """
    if len(ours) < 64:
        return None
    distance_to = frechet_distance_to(theirs)
    order = np.random.default_rng(seed).permutation(len(ours))
    sizes = tuple(int(size) for size in np.unique(np.linspace(len(ours) // 4, len(ours), _SIZES).astype(np.int64)))
    distances = tuple(distance_to(FeatureRows(ours, np.sort(order[:size]))) for size in sizes)
    _, unbiased = np.polyfit(1 / np.array(sizes), np.array(distances), 1)
    return SampleSizeBias(sizes, distances, float(unbiased))
