"""The description of a bundle, from its training slices and the logs of its training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medvar_engine.bundle.read import SliceType
from medvar_engine.conditions import Condition, listed
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.metric_log import Metric, read_log
from medvar_engine.request import Sampling
from medvar_export.model_card import model_card
from medvar_export.write_bundle import Description


def describe(
    name: str, licence: str, data: Path, *, logs: Iterable[Path] = (), notes: str = "", sampling: Sampling = Sampling()
) -> Description:
    """The description of a bundle: slice types, attributions, statement about the training data, and model card.

    ``data`` is the folder of training slices, ``logs`` are the ``log.csv`` of the runs, and ``notes`` is Markdown for
    the card.
    """
    dataset = SliceDataset(data, split="train")
    manifest = dataset.manifest
    slice_types = _slice_types(dataset)
    held_out = sorted(patient for patient, split in manifest.split.items() if split == "test")
    patients = sorted(patient for patient, split in manifest.split.items() if split == "train")
    statement = (
        f"{len(dataset)} slices of {len(patients)} patients ({listed(patients)}). "
        f"Held out and never trained on: {listed(held_out) or 'nobody'}."
    )
    attributions = tuple(f"{source['attribution']}: {listed(source['patients'])}" for source in manifest.sources)
    card = model_card(name, licence, statement, attributions, slice_types, held_out_metrics(logs), notes)
    return Description(name, licence, attributions, statement, card, slice_types, sampling)


def held_out_metrics(logs: Iterable[Path]) -> dict[Metric, float]:
    """The last value of every metric of held-out patients, from training logs. Raises `MedvarError` for other files."""
    metrics: dict[Metric, float] = {}
    for path in logs:
        found = read_log(path)
        metrics |= {metric: points[-1][1] for metric, points in found.items() if metric.split == "held_out"}
    return metrics


def _slice_types(dataset: SliceDataset) -> tuple[SliceType, ...]:
    """The slice types of a dataset, one for each modality, region and plane."""
    table = dataset.columns("patient", "spacing_mm", "low", "high", "unit")
    columns = {name: table[name].to_numpy() for name in table.column_names}
    codes_of: dict[Condition, list[int]] = defaultdict(list)
    for code, one in enumerate(dataset.conditions.distinct):
        codes_of[Condition(one.modality, one.region, one.plane)].append(code)
    chosen = {condition: np.isin(dataset.conditions.codes, codes) for condition, codes in codes_of.items()}
    return tuple(
        _slice_type(condition, {name: values[chosen[condition]] for name, values in columns.items()})
        for condition in sorted(chosen, key=str)
    )


def _slice_type(condition: Condition, columns: dict[str, npt.NDArray[np.generic]]) -> SliceType:
    spacings = [value for value in columns["spacing_mm"].astype(np.float64) if value > 0]  # NaN if unknown
    physical = set(columns["unit"]) == {"HU"}
    return SliceType(
        condition,
        slices=len(columns["patient"]),
        patients=len(set(columns["patient"])),
        spacing_mm=round(float(np.median(spacings)), 4) if spacings else None,
        # MR has no unit: its values are fractions of the range of each volume.
        low=float(np.median(columns["low"].astype(np.float64))) if physical else 0.0,
        high=float(np.median(columns["high"].astype(np.float64))) if physical else 1.0,
        unit="HU" if physical else "arbitrary",
    )
