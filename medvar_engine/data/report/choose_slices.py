"""Chooses slices to show: a few of each label, from as many patients as possible, reproducibly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards.slice_table import numbers
from medvar_engine.data.shards.tally import distinct_rows
from medvar_engine.types import IntArray


def groups(dataset: SliceDataset, columns: Sequence[str]) -> list[tuple[tuple[str, ...], IntArray]]:
    """The positions of slices with equal values in ``columns``, by these values; ``""`` for a missing value."""
    values, codes = distinct_rows(dataset.columns(*columns), columns)
    parts = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    named = [(tuple(name or "" for name in row), part) for row, part in zip(values, parts, strict=True)]
    return sorted(named, key=lambda item: item[0])


def patients(dataset: SliceDataset) -> IntArray:
    """The number of the patient of each slice (N,)."""
    return numbers(dataset.columns("patient"), "patient").astype(np.int64)


def spread(positions: IntArray, patients: IntArray, count: int) -> IntArray:
    """At most ``count`` of the positions: one of each patient first, then a second one, and so on.

    ``patients`` (N,) is the patient of each position. The choice is random with a fixed seed.
    """
    generator = np.random.default_rng(0)
    shuffled = generator.permutation(len(positions))
    order = shuffled[
        np.argsort(patients[shuffled], kind="stable")
    ]  # by patient, with the slices of each patient shuffled
    ordered = patients[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    turn = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    place = np.empty(len(order), dtype=np.int64)
    place[shuffled] = np.arange(len(order))
    chosen = order[np.lexsort((place[order], turn))][:count]
    return np.asarray(positions[chosen])
