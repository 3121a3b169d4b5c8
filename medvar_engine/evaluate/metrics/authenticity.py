"""Measures of copying in feature space: AuthPct (arXiv 2102.08921) and C_T (arXiv 2004.05675)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.cluster.vq import kmeans2

from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.metrics.check_features import check_comparable
from medvar_engine.evaluate.metrics.coverage import check_different, distances, radii
from medvar_engine.types import BoolArray, FloatArray

_ROWS = 1024
_IN_A_CELL = 30  # average number of training images in a cell of C_T
_FEWEST = 3  # least images in a cell, on both sides


def authentic_share(training: FloatArray, made: FloatArray) -> float:
    """AuthPct: the share of generated images that are authentic.

    An image is authentic if it is farther from its nearest training image than that image is from its own nearest
    neighbour. 0.5 is expected for new images from the same distribution; a model that copies has a value near 0.
    """
    return float(authentic(training, made).mean())


def authentic(training: FloatArray, made: FloatArray) -> BoolArray:
    """The result of `authentic_share` for each image ``(M,)``."""
    check_comparable(training, made)
    if len(training) < 2 or not len(made):
        raise MedvarError("AuthPct needs at least 2 training images and 1 synthetic image.")
    check_different(training)
    apart = radii(training, 1)
    found = np.empty(len(made), dtype=bool)
    for first in range(0, len(made), _ROWS):
        rows = slice(first, first + _ROWS)
        squared = distances(made[rows], training)
        nearest = squared.argmin(axis=1)
        found[rows] = squared[np.arange(len(squared)), nearest] > apart[nearest]
    return found


def copying_score(training: FloatArray, held_out: FloatArray, made: FloatArray, *, seed: int = 0) -> float | None:
    """C_T: whether generated images are closer to the training set than held-out images are, in standard deviations.

    A value well below 0 means copying, well above 0 underfitting. The training set is divided into cells, in which the
    distances of both sides are compared by a rank test (Mann-Whitney). None if no cell has enough images of both sides.
    Raises `MedvarError` when there are fewer than 2 training images, or all are equal.
    """
    return copying_by_cells(training, held_out, made, seed=seed)(np.arange(len(made)))


def copying_by_cells(
    training: FloatArray, held_out: FloatArray, made: FloatArray, *, seed: int = 0
) -> Callable[[npt.NDArray[np.int64]], float | None]:
    """A function that computes `copying_score` for a selection of the generated images, e.g. for bootstrap draws."""
    check_comparable(training, held_out, made)
    if len(training) < 2:
        raise MedvarError("C_T needs at least 2 training images.")
    check_different(training)
    cells = max(1, min(len(training) // _IN_A_CELL, 64))
    centres, of_training = kmeans2(np.asarray(training, dtype=np.float64), cells, minit="++", seed=seed)
    (real_cells, real), (made_cells, ours) = (
        (_cell(side, centres), np.sqrt(_nearest(side, training))) for side in (held_out, made)
    )
    by_cell = [(cell, real[real_cells == cell]) for cell in np.unique(of_training)]
    by_cell = [(cell, lengths) for cell, lengths in by_cell if len(lengths) >= _FEWEST]

    def score(index: npt.NDArray[np.int64]) -> float | None:
        chosen_cells, chosen = made_cells[index], ours[index]
        total, weights = 0.0, 0
        for cell, lengths in by_cell:
            drawn = chosen[chosen_cells == cell]
            if len(drawn) >= _FEWEST:
                total += len(lengths) * _rank_score(drawn, lengths)
                weights += len(lengths)
        return total / weights if weights else None

    return score


def _rank_score(drawn: npt.NDArray[np.float64], real: npt.NDArray[np.float64]) -> float:
    """The Mann-Whitney U statistic as a normal deviate: below 0 when ``drawn`` are smaller than ``real``."""
    n, m = len(drawn), len(real)
    ranks = stats.rankdata(np.concatenate([drawn, real]))
    u = ranks[:n].sum() - n * (n + 1) / 2
    return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


def _cell(features: FloatArray, centres: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = distances(features, centres).argmin(axis=1)
    return found


def _nearest(features: FloatArray, training: FloatArray) -> npt.NDArray[np.float64]:
    parts = [distances(features[i : i + _ROWS], training).min(axis=1) for i in range(0, len(features), _ROWS)]
    return np.concatenate(parts) if parts else np.empty(0)
