"""Do synthetic pairs help to train a segmenter? U-Nets learn from real pairs, synthetic pairs, or both.

They learn from 1, 2, 4 … training patients, and are tested on patients who were held out from the model of the pairs
and from the U-Nets. The model of the pairs saw all training patients, however few of them the U-Net sees: that it adds
something to few patients is shown only by a model that saw no more than these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.image_source import PreparedImages
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.encoded_slices import check_structures
from medvar_engine.evaluate.images.mask_source import PreparedMasks
from medvar_engine.evaluate.images.synthetic_images import Synthetic
from medvar_engine.evaluate.learning_curve import (
    SYNTHETIC,
    CurvePoint,
    Progress,
    learn_from_each,
    patient_counts,
    report_step,
    rows_of_patients,
)
from medvar_engine.evaluate.metrics.bootstrap import estimate
from medvar_engine.evaluate.metrics.dice import dice
from medvar_engine.evaluate.metrics.metric_table import MetricValue, shown
from medvar_engine.evaluate.pairs.segmenter import Pairs, overlaps, side_of, trained_segmenter
from medvar_engine.train.batches import spread

MOST_TESTED = 2000  # held-out slices that are segmented


@dataclass(frozen=True, slots=True)
class SegmentationUtility:
    """How well U-Nets segment held-out patients, by their training pairs."""

    structures: tuple[str, ...]
    steps: int  # training steps of each U-Net
    seeds: int  # number of U-Nets that are averaged
    dice: dict[str, MetricValue]  # of all training patients: "real", "real and synthetic"; and "synthetic"
    curve: tuple[CurvePoint, ...]  # with fewer patients, up to all; empty if not requested
    task: str = "segmentation"

    @property
    def metrics(self) -> dict[str, MetricValue]:
        """The metric by training pairs."""
        return self.dice


def check_segmentation(synthetic: Synthetic, training: SliceDataset, held_out: SliceDataset) -> None:
    """Raise `MedvarError` when pairs are missing on a side, or the structures differ."""
    if synthetic.masks is None:
        raise MedvarError(f"{synthetic.name} holds images without masks, so there is nothing to learn to segment.")
    check_structures(synthetic.masks.structures, training, synthetic.name)
    if not any(held_out.masks([i]).any() for i in range(len(held_out))):
        raise MedvarError(f"No mask of a held-out patient in {held_out.folder} shows a structure.")


def real_pairs(data: SliceDataset) -> Pairs:
    """All slices of a split with their masks."""
    return Pairs(PreparedImages(data), PreparedMasks(data), np.arange(len(data)))


def tested_pairs(held_out: SliceDataset) -> Pairs:
    """Held-out slices with their masks, at most `MOST_TESTED`, evenly spread."""
    return replace(real_pairs(held_out), rows=spread(len(held_out), MOST_TESTED))


def synthetic_pairs(synthetic: Synthetic) -> Pairs:
    """All synthetic images with their masks. Raises `MedvarError` when they have none."""
    if synthetic.masks is None:
        raise MedvarError(f"{synthetic.name} holds images without masks.")
    return Pairs(synthetic.images, synthetic.masks, np.arange(len(synthetic)))


def measure_segmentation(
    synthetic: Synthetic,
    data: Path,
    *,
    steps: int = 300,
    seeds: int = 3,
    patients: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> SegmentationUtility:
    """Dice on held-out patients, as in nnU-Net: for each structure of a patient, then averaged over patients.

    A structure that neither a patient's masks nor the U-Net show counts for nothing, and one that only the U-Net shows
    as 0. Intervals are over patients, and every metric is the mean over U-Nets of several seeds, each of which draws
    other training patients. With ``patients`` U-Nets also learn from fewer patients: from these numbers or, if it is
    empty, from 1, 2, 4 …. Raises `MedvarError` as `check_segmentation` and `patient_counts` do.
    """
    training, held_out = SliceDataset(data, "train"), SliceDataset(data, "test")
    check_segmentation(synthetic, training, held_out)
    patient_of_row = [row.patient for row in training.rows]
    every = len(set(patient_of_row))
    counts = (every,) if patients is None else patient_counts(every, patients)
    test, side = tested_pairs(held_out), side_of(training.size)
    real, made = real_pairs(training), synthetic_pairs(synthetic)
    people = [held_out.rows[int(i)].patient for i in test.rows]

    def measured(what: str, sources: Callable[[int], Sequence[Pairs]]) -> MetricValue:
        found = []
        for seed in range(seeds):
            report = functools.partial(report_step, progress, what, steps)
            network = trained_segmenter(sources(seed), side, steps, seed, report)
            found.append(dice_by_patient(overlaps(network, test, side), people))
        values = np.stack(found)  # (seeds, patients, structures)
        if not np.isfinite(values).any():
            return MetricValue(None, missing="neither masks nor U-Nets show a structure")

        def mean(index: npt.NDArray[np.int64]) -> float:
            return _mean(values[:, index])

        return shown(estimate(mean, sorted(set(people))), "held-out patients")

    def some(count: int, seed: int) -> Pairs:
        return Pairs(real.images, real.masks, rows_of_patients(patient_of_row, count, seed))

    points = learn_from_each(measured, some, made, counts)
    alone = measured(SYNTHETIC, lambda _: [made])
    names, curve = tuple(one.name for one in training.structures), () if patients is None else points
    return SegmentationUtility(names, steps, seeds, {**points[-1].metrics, SYNTHETIC: alone}, curve)


def dice_by_patient(counts: npt.NDArray[np.int64], patients: Sequence[str]) -> npt.NDArray[np.float64]:
    """`overlaps` of slices ``(N, M, 3)`` → Dice of each patient's structures ``(P, M)``, patients sorted by name."""
    names, codes = np.unique(list(patients), return_inverse=True)
    sums = np.zeros((len(names), *counts.shape[1:]), dtype=np.int64)
    np.add.at(sums, codes, counts)
    return dice(sums)


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of ``(seeds, patients, structures)`` over structures, then over patients and seeds, without NaN."""
    there = np.isfinite(values)
    sums, counts = np.where(there, values, 0.0).sum(-1), there.sum(-1)
    return float((sums[counts > 0] / counts[counts > 0]).mean()) if counts.any() else float("nan")  # of a draw
