"""Intensity histograms before and after harmonising, with one line per patient to show outliers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.recipe.dataset_recipe import DatasetRecipe
from medvar_engine.data.report.charts import Line
from medvar_engine.data.report.choose_slices import groups, patients, spread
from medvar_engine.data.survey import Known, ScanRules, survey
from medvar_engine.errors import MedvarError
from medvar_engine.types import IntArray
from medvar_engine.value_range import ValueRange, decode

BINS = 96
PATIENTS = 12
SLICES_EACH = 8
SERIES = 6
_WHITE = 65535
_VALUES = 200_000  # evenly spaced values of a volume

Group = tuple[str, str]
"""Region and modality."""


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Lines over the same bins, equal parts of ``bounds`` in ``unit``."""

    bounds: tuple[float, float]
    lines: tuple[Line, ...]
    unit: str


@dataclass(frozen=True, slots=True, eq=False)
class GroupHistograms:
    """The intensities of one region and modality.

    ``after`` belongs to the harmonised slices, ``window`` to the same slices in their original values, clipped to the
    window. ``low`` and ``high`` are the shares of pixels at -1 and 1. ``limits`` is the window of CT in HU.
    """

    group: Group
    after: Histogram
    window: Histogram
    low: float
    high: float
    limits: tuple[float, float] | None


def slice_histograms(dataset: SliceDataset) -> Iterator[GroupHistograms]:
    """The histograms of each region and modality, of a few slices of a few patients."""
    everyone = patients(dataset)
    for (region, modality), positions in groups(dataset, ("region", "modality")):
        few = everyone[spread(positions, everyone[positions], PATIENTS)]
        theirs = positions[np.isin(everyone[positions], few)]
        yield _of_group(dataset, (region, modality), spread(theirs, everyone[theirs], PATIENTS * SLICES_EACH))


def _of_group(dataset: SliceDataset, group: Group, positions: IntArray) -> GroupHistograms:
    codes: dict[str, list[tuple[np.ndarray, float, float]]] = {}
    unit = ""
    for position in np.sort(positions):
        row = dataset.rows[int(position)]
        image = dataset.codes(int(position)).ravel()
        codes.setdefault(row.patient, []).append((image, row.low, row.high))
        unit = "HU" if row.unit == "HU" else ""
    images = [one for of_patient in codes.values() for one in of_patient]
    total = sum(image.size for image, _, _ in images)
    ranges = {(low, high) for _, low, high in images}
    bounds = _bounds(min(low for low, _ in ranges), max(high for _, high in ranges))

    def harmonised(image: np.ndarray, low: float, high: float) -> np.ndarray:
        return decode(image)

    def measured(image: np.ndarray, low: float, high: float) -> np.ndarray:
        return ValueRange(low, high, unit).to_values(decode(image))

    def histogram(bounds: tuple[float, float], unit: str, values_of: Callable[..., np.ndarray]) -> Histogram:
        drawn = [
            # Values at both ends were clipped or are padding. They would dominate, and are given as shares.
            _line(name, np.concatenate([values_of(i[(i > 0) & (i < _WHITE)], lo, hi) for i, lo, hi in own]), bounds)
            for name, own in codes.items()
        ]
        return Histogram(bounds, tuple(drawn), unit)

    return GroupHistograms(
        group=group,
        after=histogram((-1.0, 1.0), "", harmonised),
        window=histogram(bounds, unit, measured),
        low=sum(int((image == 0).sum()) for image, _, _ in images) / total,
        high=sum(int((image == _WHITE).sum()) for image, _, _ in images) / total,
        limits=ranges.pop() if unit and len(ranges) == 1 else None,
    )


@dataclass(frozen=True, slots=True)
class ScanHistograms:
    """The values of whole scans by region and modality, and the number of chosen scans that could not be read.

    Scans are numbered, because the slices may have been made with pseudonyms.
    """

    groups: dict[Group, Histogram]
    unread: int


def scan_histograms(scans: Path, recipe: DatasetRecipe | None = None) -> ScanHistograms:
    """Histograms of all values of a few series of each region and modality, one in memory at a time.

    The scans are identified as by `prepare`. Raises `MedvarError` when there are none, or none can be identified.
    """
    known, _ = survey(scans, ScanRules(dataset_recipe=recipe))
    if not known:
        raise MedvarError(
            f"The region and the modality of no scan in {scans} are known. Give the folder that was prepared, "
            "and its recipe."
        )
    by_group: dict[Group, list[Known]] = {}
    for one in known:
        by_group.setdefault((one[1].region, one[1].modality), []).append(one)
    histograms: dict[Group, Histogram] = {}
    unread = 0
    for group, members in sorted(by_group.items()):
        patients = np.unique([identity.patient for _, identity in members], return_inverse=True)[1]
        values: list[np.ndarray] = []
        for place in spread(np.arange(len(members)), patients, SERIES):
            series, _ = members[int(place)]
            try:
                volume = next(series.load(phase_step=1 << 30))
                flat = volume.array.ravel()
                values.append(flat[:: max(1, flat.size // _VALUES)].copy())
            except (MedvarError, StopIteration):
                unread += 1
        if values:
            histograms[group] = _of_scans(values, "HU" if group[1] == "CT" else "")
    return ScanHistograms(histograms, unread)


def _of_scans(scans: list[np.ndarray], unit: str) -> Histogram:
    low, high = (float(value) for value in np.percentile(np.concatenate(scans), (0.1, 99.9)))
    bounds = _bounds(low, high)
    # The background of MR, a third of the voxels at one value, would dominate the histogram.
    inside = [values[(values > bounds[0]) & (values < bounds[1])] for values in scans]
    return Histogram(bounds, tuple(_line(f"scan {n + 1}", one, bounds) for n, one in enumerate(inside)), unit)


def _bounds(low: float, high: float) -> tuple[float, float]:
    """The bounds of an axis, also for a single value or no finite value."""
    if not np.isfinite((low, high)).all():
        return 0.0, 1.0
    return (low, high) if low < high else (low, low + 1)


def _line(name: str, values: np.ndarray, bounds: tuple[float, float]) -> Line:
    counts = np.histogram(values, BINS, bounds)[0]
    return Line(name, counts / max(1, counts.sum()))
