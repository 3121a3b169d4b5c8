"""Smoothness of stacks: mean differences of neighbouring slices, compared with those of real volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generator import Generator
from medvar_engine.sets.stack import Stack, draw_stack, stack_requests
from medvar_engine.types import FloatArray

LABELS = 4  # number of labels with most slices that are measured
SLICES, STACKS = 16, 2  # slices per stack; stacks per label
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
    series, places = zip(*((row.series, row.position_mm) for row in data.rows), strict=True)
    positions = [condition.position for condition in data.conditions]
    found: dict[str, StackSmoothness] = {}
    for code, _ in Counter(codes.tolist()).most_common():
        if len(found) == LABELS:
            break
        own = np.flatnonzero(codes == code).tolist()
        pairs, distances = _neighbours({i: (series[i], place) for i in own if (place := places[i]) is not None})
        if len(pairs) < _FEWEST:
            continue
        # A distance that occurs; the mean of two different middle values would be the distance of no pair.
        spacing = float(np.percentile(distances, 50, method="lower"))
        pairs = pairs[np.abs(distances - spacing) <= _ALIKE * spacing]
        if len(pairs) < _FEWEST:
            continue
        pairs = pairs[:: max(1, len(pairs) // _MOST)]
        known = [
            (series[i], place, p) for i in own if (place := places[i]) is not None if (p := positions[i]) is not None
        ]
        first, last = _range(known, spacing * (SLICES - 1)) if known and bundle.labels.position else (None, None)
        try:
            stack = Stack(SLICES, spacing, last)
            stacks, unrelated = _stacks(generator, bundle, replace(asked[code], position=first), stack)
        except MedvarError:
            continue
        real = _differences(data.batch(pairs[:, 0])[:, 0], data.batch(pairs[:, 1])[:, 0])
        found[str(asked[code])] = StackSmoothness(spacing, stacks, real, unrelated)
    return found


def _neighbours(slices: dict[int, tuple[str, float]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Indices of neighbouring slices of a series ``(N, 2)``, and their distances in mm.

    ``slices`` holds the series and the position in mm of each.
    """
    pairs, distances = [], []
    for one, other in pairwise(sorted(slices, key=slices.__getitem__)):
        (series, place), (next_series, next_place) = slices[one], slices[other]
        if series == next_series and place < next_place:
            pairs.append((one, other))
            distances.append(next_place - place)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(distances)


def _range(slices: Sequence[tuple[str, float, float]], length: float) -> tuple[float, float]:
    """The positions between which a stack of ``length`` mm lies, in the middle of real scans.

    ``slices`` are real ones: series, place in mm, and position, which changes along a stack as it does in the scans.
    """
    by_series: dict[str, list[tuple[float, float]]] = {}
    for name, place, position in slices:
        by_series.setdefault(name, []).append((place, position))
    ends = [(min(one), max(one)) for one in by_series.values()]
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in ends if b[0] > a[0]]
    half = min(0.5, float(np.median(rates)) * length / 2)
    middle = min(max(float(np.median([position for *_, position in slices])), half), 1 - half)
    return middle - half, middle + half


def _stacks(generator: Generator, bundle: Bundle, condition: Condition, stack: Stack) -> tuple[float, float]:
    """The differences of neighbours within stacks, and of slices of different stacks."""
    condition = bundle.labels.known(condition)
    images = []
    for seed in range(STACKS):
        requests = stack_requests(bundle, condition, seed, bundle.sampling, stack)
        images.append(np.concatenate([generator.image(one) for one in draw_stack(generator, requests)]))
    neighbours = [_differences(one[:-1], one[1:]) for one in images]
    return float(np.mean(neighbours)), _differences(images[0], images[1])


def _differences(one: FloatArray, other: FloatArray) -> float:
    return float(np.abs(one - other).mean())
