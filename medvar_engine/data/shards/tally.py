"""Counts of slices by patient, condition and source, in one pass over the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medvar_engine.data.shards.slice_table import BATCH_ROWS, names, numbers

_COUNTED = ("patient", "modality", "region", "plane", "dataset", "source", "licence")

Groups = Sequence[Mapping[str, Any]]
"""Groups of slices with equal values in all counted columns: the values, and the number of ``slices``."""


def tally(table: pa.Table) -> Groups:
    """The groups of a table: a few for each patient."""
    rows, codes = distinct_rows(table, _COUNTED)
    slices = np.bincount(codes, minlength=len(rows)).tolist()
    return [dict(zip(_COUNTED, row, strict=True)) | {"slices": count} for row, count in zip(rows, slices, strict=True)]


def distinct_rows(table: pa.Table, columns: Sequence[str]) -> tuple[list[tuple[str | None, ...]], NDArray[np.int32]]:
    """The distinct combinations of names in ``columns``, and the number of the combination of each row."""
    words = [[*names(table, column), None] for column in columns]  # index -1, no name, selects the last one
    found: dict[tuple[int, ...], int] = {}
    codes = np.empty(len(table), dtype=np.int32)
    for start in range(0, len(table), BATCH_ROWS):  # in batches, because sorting all rows at once needs much memory
        numbered = [numbers(table.slice(start, BATCH_ROWS), column) for column in columns]
        alike = np.zeros(len(numbered[0]), dtype=np.int64)
        for values, known in zip(numbered, words, strict=True):
            _, first, alike = np.unique(alike * len(known) + (values + 1), return_index=True, return_inverse=True)
        rows = zip(*(values[first].tolist() for values in numbered), strict=True)
        codes[start : start + BATCH_ROWS] = np.array([found.setdefault(row, len(found)) for row in rows])[alike]
    return [tuple(known[i] for known, i in zip(words, row, strict=True)) for row in found], codes


def strata_of(groups: Groups, columns: Iterable[str]) -> dict[str, set[tuple[str, ...]]]:
    """Patient → strata with slices of the patient, by these columns."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for group in groups:
        found.setdefault(group["patient"], set()).add(tuple(group[name] or "" for name in columns))
    return found


def counts(groups: Groups, split: Mapping[str, str]) -> list[dict[str, Any]]:
    """The numbers of slices and patients for each modality, region, plane and split."""
    slices: dict[tuple[str, ...], int] = {}
    patients: dict[tuple[str, ...], set[str]] = {}
    for group in groups:
        key = (group["modality"], group["region"] or "", group["plane"] or "", split[group["patient"]])
        slices[key] = slices.get(key, 0) + group["slices"]
        patients.setdefault(key, set()).add(group["patient"])
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
    """For each source: licence, attribution, data set, and the numbers of patients and slices."""
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
