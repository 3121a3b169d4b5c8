"""Counts of slices by label and patient, and pixel sizes, from the table only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.report.choose_slices import groups


@dataclass(frozen=True, slots=True)
class Label:
    """The slices of one region, modality and plane, in both splits."""

    region: str
    modality: str
    plane: str
    train: int
    train_patients: int
    test: int
    test_patients: int

    @property
    def name(self) -> str:
        """``brain MR axial``."""
        return " ".join(part for part in (self.region, self.modality, self.plane) if part)


def labels(dataset: SliceDataset) -> list[Label]:
    """The labels of a dataset, by name."""
    found: dict[tuple[str, str, str], dict[str, tuple[int, int]]] = {}
    for row in dataset.manifest.counts:
        key = (row.get("region") or "", row["modality"], row.get("plane") or "")
        found.setdefault(key, {})[row["split"]] = (int(row["slices"]), int(row["patients"]))
    return [
        Label(*key, *sides.get("train", (0, 0)), *sides.get("test", (0, 0))) for key, sides in sorted(found.items())
    ]


@dataclass(frozen=True, slots=True)
class Patient:
    """The slices of one patient."""

    name: str
    split: str
    slices: int
    series: int


def patients(dataset: SliceDataset) -> list[Patient]:
    """All patients, those with the most slices first."""
    columns = dataset.columns("patient", "series")
    groups = columns.group_by("patient", use_threads=False).aggregate([("series", "count_distinct"), ([], "count_all")])
    found = [
        Patient(row["patient"], dataset.manifest.split[row["patient"]], row["count_all"], row["series_count_distinct"])
        for row in groups.to_pylist()
    ]
    return sorted(found, key=lambda one: (-one.slices, one.name))


@dataclass(frozen=True, slots=True)
class Spacing:
    """Pixel sizes in mm of the slices of one data set and modality; ``unknown`` slices have none."""

    dataset: str
    modality: str
    slices: int
    smallest: float | None
    median: float | None
    largest: float | None
    unknown: int


def spacings(dataset: SliceDataset) -> list[Spacing]:
    """The pixel sizes of each data set and modality."""
    column = dataset.columns("spacing_mm")["spacing_mm"].to_numpy()  # NaN if unknown
    found = []
    for (name, modality), positions in groups(dataset, ("dataset", "modality")):
        known = column[positions][~np.isnan(column[positions])]
        least, middle, most = np.quantile(known, (0, 0.5, 1)).tolist() if len(known) else (None, None, None)
        found.append(Spacing(name, modality, len(positions), least, middle, most, len(positions) - len(known)))
    return found


def alike_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ only in case, punctuation, spaces and leading zeros, and may belong to one patient."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(re.sub(r"[\W_]+|(?<!\d)0+(?=\d)", "", name.casefold()), []).append(name)
    return [tuple(group) for plain, group in groups.items() if plain and len(group) > 1]
