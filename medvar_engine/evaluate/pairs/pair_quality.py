"""How well masks fit their images, and whether masks, images, or both are copies of training pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.evaluate.images.synthetic_images import Synthetic
from medvar_engine.evaluate.metrics.bootstrap import estimate, estimate_mean
from medvar_engine.evaluate.metrics.dice import dice
from medvar_engine.evaluate.metrics.metric_table import MetricValue, shown
from medvar_engine.evaluate.pairs.mask_copies import copied_masks
from medvar_engine.evaluate.pairs.segmentation_utility import real_pairs, synthetic_pairs, tested_pairs
from medvar_engine.evaluate.pairs.segmenter import overlaps, side_of, trained_segmenter
from medvar_engine.types import IntArray

STEPS = 300  # training steps of the U-Net


@dataclass(frozen=True, slots=True)
class PairQuality:
    """Dice between masks and the segmentation of their images by a U-Net trained on training pairs; and copies."""

    structures: tuple[str, ...]
    steps: int  # training steps of the U-Net
    synthetic: MetricValue
    held_out: MetricValue  # for real pairs of held-out patients: more cannot be expected
    by_structure: dict[str, dict[str, float | None]]  # Dice of "synthetic" and "held out"; None if there is none
    mask_copies: MetricValue  # share of masks that are closer to a training mask than 97 % of held-out masks are
    pair_copies: (
        MetricValue | None
    )  # share of pairs with such an image and such a mask; None if images were not checked


def measure_pairs(
    synthetic: Synthetic,
    training: SliceDataset,
    held_out: SliceDataset,
    flagged: npt.NDArray[np.bool_] | None = None,
    *,
    steps: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> PairQuality:
    """Metrics of all pairs. ``flagged`` marks images that may be copies.

    The U-Net is trained for ``steps``, by default `STEPS`. Dice is computed for all pixels of a structure together, and
    averaged over structures.
    """
    steps = STEPS if steps is None else steps

    def report(done: int) -> None:
        if progress is not None:
            progress("training a segmenter on real pairs", done, steps)

    side, names = side_of(training.size), tuple(one.name for one in training.structures)
    network = trained_segmenter([real_pairs(training)], side, steps, 0, report)
    ours = overlaps(network, synthetic_pairs(synthetic), side)
    test = tested_pairs(held_out)
    theirs = overlaps(network, test, side)
    groups = [str(i) for i in range(len(synthetic))]
    mask_copies = copied_masks(synthetic_pairs(synthetic), training, held_out)
    both = None if flagged is None else shown(estimate_mean(flagged & mask_copies, groups), "images")
    return PairQuality(
        names,
        steps,
        _dice(ours, groups, "images"),
        _dice(theirs, [held_out.rows[int(i)].patient for i in test.rows], "held-out patients"),
        {
            name: {"synthetic": _or_none(one), "held out": _or_none(other)}
            for name, one, other in zip(names, dice(ours.sum(0)), dice(theirs.sum(0)), strict=True)
        },
        shown(estimate_mean(mask_copies, groups), "images"),
        both,
    )


def _dice(counts: IntArray, groups: Sequence[str], over: str) -> MetricValue:
    def mean(index: IntArray) -> float:
        values = dice(counts[index].sum(0))
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    if not counts.any():
        return MetricValue(None, missing="no mask shows a structure, and the segmenter finds none")
    return shown(estimate(mean, groups), over)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
