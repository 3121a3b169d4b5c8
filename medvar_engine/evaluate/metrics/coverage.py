"""Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797).

An image lies within a set if it is closer to one of its members than that member is to its own k-th nearest neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.check_features import check_comparable
from medvar_engine.types import FloatArray

Doubles = npt.NDArray[np.float64]

NEIGHBOURS = 5
_ROWS = 1024
_SAME = 1e-12  # relative to the squared lengths: features that are closer differ by float32 rounding only


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of images. Density can exceed 1 when many synthetic images lie among few real ones."""

    precision: float  # share of synthetic images within the real set
    recall: float  # share of real images within the synthetic set
    density: float  # mean number of real neighbourhoods that contain a synthetic image, divided by k
    coverage: float  # share of real images with a synthetic image in their neighbourhood


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhoods:
    """The contributions of single images; their means are a `Coverage`."""

    precise: Doubles  # (M,) whether a synthetic image lies within the real set
    recalled: Doubles  # (N,) whether a real image lies within the synthetic set
    dense: Doubles  # (M,) number of real neighbourhoods that contain a synthetic image, divided by k
    covered: Doubles  # (N,) whether a real image has a synthetic image in its neighbourhood


def coverage(real: FloatArray, made: FloatArray, *, neighbours: int = NEIGHBOURS) -> Coverage:
    """Precision, recall, density and coverage of features ``(N, D)`` and ``(M, D)``, by Euclidean distance.

    Raises `MedvarError` when a side has at most ``neighbours`` images, or when all real images are equal.
    """
    found = neighbourhoods(real, made, neighbours=neighbours)
    means = (float(one.mean()) for one in (found.precise, found.recalled, found.dense, found.covered))
    return Coverage(*means)


def neighbourhoods(real: FloatArray, made: FloatArray, *, neighbours: int = NEIGHBOURS) -> Neighbourhoods:
    """The contributions of single images to `coverage`."""
    check_comparable(real, made)
    if min(len(real), len(made)) <= neighbours:
        raise MedvarError(f"Precision and recall need more than {neighbours} images on both sides.")
    check_different(real)
    real_radius, made_radius = radii(real, neighbours), radii(made, neighbours)
    precise, dense = np.empty(len(made)), np.empty(len(made))
    recalled, nearest = np.zeros(len(real), dtype=bool), np.full(len(real), np.inf)
    for first in range(0, len(made), _ROWS):
        rows = slice(first, first + _ROWS)
        squared = distances(real, made[rows])  # (N, b)
        in_real = squared < real_radius[:, None]
        precise[rows], dense[rows] = in_real.any(axis=0), in_real.sum(axis=0) / neighbours
        recalled |= (squared < made_radius[None, rows]).any(axis=1)
        nearest = np.minimum(nearest, squared.min(axis=1))
    covered = nearest < real_radius
    return Neighbourhoods(precise, recalled.astype(np.float64), dense, covered.astype(np.float64))


def check_different(real: FloatArray) -> None:
    """Raises `MedvarError` when all features are equal, because neighbourhoods then have no size."""
    if not any(distances(real[first : first + _ROWS], real[:1]).any() for first in range(0, len(real), _ROWS)):
        raise MedvarError(
            "All real images have the same features by this encoder, so their distances cannot be compared."
        )


def radii(features: FloatArray, neighbours: int) -> Doubles:
    """The squared distance of every row to its k-th nearest neighbour among the others, ``(N,)``."""
    found = np.empty(len(features))
    for first in range(0, len(features), _ROWS):
        squared = distances(features[first : first + _ROWS], features)
        squared[np.arange(len(squared)), first + np.arange(len(squared))] = (
            0.0  # exactly 0, so that it is the nearest of all
        )
        found[first : first + _ROWS] = np.partition(squared, neighbours, axis=1)[:, neighbours]
    return found


def distances(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> Doubles:
    """Squared Euclidean distances ``(N, M)``; exactly 0 where two rows differ by rounding only."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    lengths = (x * x).sum(1)[:, None] + (y * y).sum(1)[None]
    squared: Doubles = lengths - 2 * (x @ y.T)
    squared[squared <= _SAME * lengths] = 0.0
    return squared
