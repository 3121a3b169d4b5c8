"""How many slices there are of what, counted in one pass over the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medvar_engine.data.shards.slice_table import BATCH_ROWS, names, numbers

_COUNTED = ("patient", "modality", "region", "plane", "dataset", "source", "licence")

Groups = Sequence[Mapping[str, Any]]
"""Slices that agree in everything that is counted by: those values, and ``slices``, how many they are."""


def tally(table: pa.Table) -> Groups:
    """The groups of a table: a few for each patient."""
    kinds, codes = kinds_of(table, _COUNTED)
    slices = np.bincount(codes, minlength=len(kinds)).tolist()
    return [
        dict(zip(_COUNTED, kind, strict=True)) | {"slices": count} for kind, count in zip(kinds, slices, strict=True)
    ]


def kinds_of(table: pa.Table, columns: Sequence[str]) -> tuple[list[tuple[str | None, ...]], NDArray[np.int32]]:
    """The different combinations of names in ``columns``, and of each row its combination's number."""
    words = [[*names(table, column), None] for column in columns]  # of -1, no name, the last one
    found: dict[tuple[int, ...], int] = {}
    codes = np.empty(len(table), dtype=np.int32)
    for start in range(0, len(table), BATCH_ROWS):  # as sorting all at once takes memory
        numbered = [numbers(table.slice(start, BATCH_ROWS), column) for column in columns]
        alike = np.zeros(len(numbered[0]), dtype=np.int64)
        for values, known in zip(numbered, words, strict=True):
            _, first, alike = np.unique(alike * len(known) + (values + 1), return_index=True, return_inverse=True)
        kinds = zip(*(values[first].tolist() for values in numbered), strict=True)
        codes[start : start + BATCH_ROWS] = np.array([found.setdefault(kind, len(found)) for kind in kinds])[alike]
    return [tuple(known[i] for known, i in zip(words, kind, strict=True)) for kind in found], codes


def cells(groups: Groups, strata: Iterable[str]) -> dict[str, set[tuple[str, ...]]]:
    """Patient → the cells in which they have slices, by the columns ``strata``."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for group in groups:
        found.setdefault(group["patient"], set()).add(tuple(group[name] or "" for name in strata))
    return found


def counts(groups: Groups, split: Mapping[str, str]) -> list[dict[str, Any]]:
    """Slices and patients of each modality × region × plane × split."""
    slices: dict[tuple[str, ...], int] = {}
    patients: dict[tuple[str, ...], set[str]] = {}
    for group in groups:
        cell = (group["modality"], group["region"] or "", group["plane"] or "", split[group["patient"]])
        slices[cell] = slices.get(cell, 0) + group["slices"]
        patients.setdefault(cell, set()).add(group["patient"])
    return [
        {
            "modality": modality,
            "region": region or None,
            "plane": plane or None,
            "split": side,
            "slices": slices[modality, region, plane, side],
            "patients": len(patients[modality, region, plane, side]),
        }
        for modality, region, plane, side in sorted(slices)
    ]


def sources(groups: Groups) -> list[dict[str, Any]]:
    """Source, licence, attribution, data set, patients and slices of each source."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for group in groups:
        found.setdefault((group["source"], group["licence"]), []).append(group)
    return [
        {
            "source": source,
            "licence": licence or "not stated",
            "attribution": f"{source} ({licence})" if licence else source,
            "dataset": members[0]["dataset"],
            "patients": sorted({group["patient"] for group in members}),
            "slices": sum(group["slices"] for group in members),
        }
        for (source, licence), members in sorted(found.items())
    ]
