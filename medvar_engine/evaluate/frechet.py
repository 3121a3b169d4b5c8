"""Fréchet distance between two sets of features, each taken for a Gaussian (FID, arXiv 1706.08500).

From moments, which are gathered in one pass, so that memory does not grow with the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from medvar_engine.arrays import FloatArray
from medvar_engine.errors import MedvarError

Doubles = npt.NDArray[np.float64]

_ROWS = 4096
_SIZES = 8  # subsets for the extrapolation


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Number, mean ``(D,)`` and sum of squared deviations ``(D, D)`` of rows."""

    count: int
    mean: Doubles
    scatter: Doubles

    def __add__(self, other: Moments) -> Moments:
        """Those of the rows of both."""
        count = self.count + other.count
        apart = other.mean - self.mean
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Doubles:
        """Unbiased, ``(D, D)``."""
        return self.scatter / (self.count - 1)


def moments(features: FloatArray) -> Moments:
    """Of ``(N, D)``, read a few thousand rows at a time. Raises `MedvarError` when any is not finite, or N is 0."""
    if features.ndim != 2 or not len(features):
        raise MedvarError(f"Features are (N, D) with N of at least 1, but got {features.shape}.")
    parts = []
    for first in range(0, len(features), _ROWS):
        rows = np.asarray(features[first : first + _ROWS], dtype=np.float64)
        if not np.isfinite(rows).all():
            raise MedvarError("Features that are not finite cannot be compared: the encoder fails on some image.")
        mean = rows.mean(axis=0)
        parts.append(Moments(len(rows), mean, (rows - mean).T @ (rows - mean)))
    return reduce(Moments.__add__, parts)


def frechet_distance(ours: Moments, theirs: Moments) -> float:
    """``|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)``; 0 for the same moments. Needs at least 2 rows on both sides."""
    if min(ours.count, theirs.count) < 2:
        raise MedvarError("A Fréchet distance needs at least 2 images on both sides.")
    apart = ours.mean - theirs.mean
    first, second = ours.covariance, theirs.covariance
    # tr (C1 C2)^½ through the symmetric C1^½ C2 C1^½, which has the same eigenvalues, all real and not negative.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ second @ root)
    overlap = np.sqrt(np.maximum(shared, 0)).sum()
    return float(max(0.0, apart @ apart + np.trace(first) + np.trace(second) - 2 * overlap))


@dataclass(frozen=True, slots=True)
class SampleSizeBias:
    """Few images make the distance too large: what it is for fewer, and what it tends to for ever more."""

    sizes: tuple[int, ...]
    distances: tuple[float, ...]
    unbiased: float  # at an infinite number of images (arXiv 1911.07023)


def sample_size_bias(ours: FloatArray, theirs: Moments, *, seed: int = 0) -> SampleSizeBias | None:
    """How the distance of ``ours`` ``(N, D)`` falls with N, and the value at 1/N = 0 of the line through it.

    None below 64 images, for which no line can be trusted.
    """
    if len(ours) < 64:
        return None
    order = np.random.default_rng(seed).permutation(len(ours))
    sizes = tuple(int(size) for size in np.unique(np.linspace(len(ours) // 4, len(ours), _SIZES).astype(np.int64)))
    distances = tuple(frechet_distance(moments(ours[np.sort(order[:size])]), theirs) for size in sizes)
    _, unbiased = np.polyfit(1 / np.array(sizes), np.array(distances), 1)
    return SampleSizeBias(sizes, distances, float(unbiased))
