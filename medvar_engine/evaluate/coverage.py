"""Is what is made real, and is what is real made?

Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797). An image counts as lying in a set when
it is nearer to one of its members than that is to its own k-th neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.arrays import FloatArray
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.comparable import check_comparable

Doubles = npt.NDArray[np.float64]

NEIGHBOURS = 5
_ROWS = 1024
_SAME = 1e-12  # of the squared lengths: float32 features that are nearer differ by rounding only


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares; density may exceed 1 where many made images lie among few real ones."""

    precision: float  # of made images, that lie in the real set
    recall: float  # of real images, that lie in the made set
    density: float  # how many real neighbourhoods a made image lies in, over k
    coverage: float  # of real images, with a made image in their neighbourhood


def coverage(real: FloatArray, made: FloatArray, *, neighbours: int = NEIGHBOURS) -> Coverage:
    """Of features ``(N, D)`` and ``(M, D)``, by Euclidean distance, a block of rows at a time.

    Raises `MedvarError` when a side has no more than ``neighbours`` images, or when all real ones are the same.
    """
    check_comparable(real, made)
    if min(len(real), len(made)) <= neighbours:
        raise MedvarError(f"Precision and recall need more than {neighbours} images on both sides.")
    check_different(real)
    real_radius, made_radius = radii(real, neighbours), radii(made, neighbours)
    inside, within_made = 0, np.zeros(len(real), dtype=bool)
    precise, nearest = 0, np.full(len(real), np.inf)
    for first in range(0, len(made), _ROWS):
        squared = distances(real, made[first : first + _ROWS])  # (N, b)
        in_real = squared < real_radius[:, None]
        inside += int(in_real.sum())
        precise += int(in_real.any(axis=0).sum())
        within_made |= (squared < made_radius[None, first : first + _ROWS]).any(axis=1)
        nearest = np.minimum(nearest, squared.min(axis=1))
    return Coverage(
        precision=precise / len(made),
        recall=float(within_made.mean()),
        density=inside / (neighbours * len(made)),
        coverage=float((nearest < real_radius).mean()),
    )


def check_different(real: FloatArray) -> None:
    """Raises `MedvarError` when the encoder tells none of these images from the first: no neighbourhood has a size."""
    if not any(distances(real[first : first + _ROWS], real[:1]).any() for first in range(0, len(real), _ROWS)):
        raise MedvarError("To this encoder all real images are the same, so none is nearer to another.")


def radii(features: FloatArray, neighbours: int) -> Doubles:
    """Squared distance of every row to its k-th neighbour among the others, ``(N,)``."""
    found = np.empty(len(features))
    for first in range(0, len(features), _ROWS):
        squared = distances(features[first : first + _ROWS], features)
        squared[np.arange(len(squared)), first + np.arange(len(squared))] = 0.0  # exactly, and so the first of all
        found[first : first + _ROWS] = np.partition(squared, neighbours, axis=1)[:, neighbours]
    return found


def distances(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> Doubles:
    """Squared Euclidean distances ``(N, M)``; exactly 0 where only rounding tells two rows apart."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    lengths = (x * x).sum(1)[:, None] + (y * y).sum(1)[None]
    squared: Doubles = lengths - 2 * (x @ y.T)
    squared[squared <= _SAME * lengths] = 0.0
    return squared
