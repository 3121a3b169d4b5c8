"""Smoothness of stacks: mean differences of neighbouring slices, compared with those of real volumes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.sets.stack import Stack, stack_requests
from medvar_engine.types import FloatArray, IntArray

LABELS, SLICES, STACKS = (
    4,
    8,
    2,
)  # number of labels with most slices that are measured; slices per stack; stacks per label
_FEWEST = 8  # least number of pairs of real neighbours for a meaningful difference
_MOST = 200  # largest number of pairs of real neighbours that are compared
_ALIKE = 0.1  # largest difference of distances within a label, as a fraction of the distance


@dataclass(frozen=True, slots=True)
class StackSmoothness:
    """Mean absolute difference of neighbouring slices of one label, in [-1, 1]."""

    spacing_mm: float  # between neighbours
    stacks: float
    real: float  # of volumes, at the same spacing
    unrelated: float  # for slices of different seeds, like a stack without coherence

    @property
    def ratio(self) -> float:
        """1 if stacks are as smooth as real volumes; above 1 if they are rougher."""
        return self.stacks / max(self.real, 1e-9)


def measure_stacks(generator: Generator, bundle: Bundle, data: SliceDataset) -> dict[str, StackSmoothness]:
    """Smoothness by label (modality, region and plane), for labels with regularly spaced slices in ``data``.

    Labels without a pixel size in the bundle are left out, because their slices have no distance in mm.
    """
    asked = [Condition(condition.modality, condition.region, condition.plane) for condition in data.conditions.distinct]
    codes = np.array([asked.index(one) for one in asked])[data.conditions.codes]
    places = [-1.0 if row.position_mm is None else row.position_mm for row in data.rows]
    series = [row.series for row in data.rows]
    positions = [condition.position for condition in data.conditions]
    found: dict[str, StackSmoothness] = {}
    for code, _ in Counter(codes.tolist()).most_common():
        own = np.array([i for i in np.flatnonzero(codes == code) if data.rows[int(i)].position_mm is not None])
        pairs, distances = _neighbours(own, series, places)
        if len(pairs) < _FEWEST or len(found) == LABELS:
            continue
        # A distance that occurs; the mean of two different middle values would be the distance of no pair.
        spacing = float(np.percentile(distances, 50, method="lower"))
        pairs = pairs[np.abs(distances - spacing) <= _ALIKE * spacing]
        if len(pairs) < _FEWEST:
            continue
        pairs = pairs[:: max(1, len(pairs) // _MOST)]
        known = [p for i in own if (p := positions[int(i)]) is not None]
        middle = float(np.median(known)) if known and bundle.labels.position else None
        try:
            smooth = _label(generator, bundle, replace(asked[code], position=middle), spacing)
        except MedvarError:
            continue
        real = _differences(data.batch(pairs[:, 0])[:, 0], data.batch(pairs[:, 1])[:, 0])
        found[str(asked[code])] = replace(smooth, real=real)
    return found


def _neighbours(
    own: IntArray, series: list[str], places: list[float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Indices of neighbouring slices of a series ``(N, 2)``, and their distances in mm."""
    order = sorted(own.tolist(), key=lambda i: (series[i], places[i]))
    pairs = [(a, b) for a, b in pairwise(order) if series[a] == series[b] and places[a] < places[b]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array([places[b] - places[a] for a, b in pairs])


def _label(generator: Generator, bundle: Bundle, condition: Condition, spacing: float) -> StackSmoothness:
    """The differences within stacks; those of real volumes are added later."""
    condition, stack = bundle.labels.known(condition), Stack(SLICES, spacing)
    images = []
    for seed in range(STACKS):
        requests = stack_requests(bundle, condition, seed, bundle.sampling, stack)
        images.append(generator.image(generator.finish(generator.start(requests))))
    neighbours = [_differences(one[:-1], one[1:]) for one in images]
    return StackSmoothness(spacing, float(np.mean(neighbours)), 0.0, _differences(images[0], images[1]))


def _differences(one: FloatArray, other: FloatArray) -> float:
    return float(np.abs(one - other).mean())
