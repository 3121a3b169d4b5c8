"""Finds masks that may be copies of training masks: they are closer to one than almost all held-out masks are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.evaluate.copies import alarm_threshold
from medvar_engine.evaluate.pairs.segmenter import Pairs
from medvar_engine.masks.structures import MaskArray
from medvar_engine.train.batches import spread
from medvar_engine.types import FloatArray

_SIDE = 64  # pixels at which masks are compared
_HELD_OUT = 2000  # largest number of held-out masks that set the threshold
_CHUNK = 1024  # training masks that are in memory together


def copied_masks(synthetic: Pairs, training: SliceDataset, held_out: SliceDataset) -> npt.NDArray[np.bool_]:
    """Which masks are closer to a training mask than 97 % of held-out masks are, with equal weight for each patient.

    Empty masks are not copies, because many slices show no structure.
    """
    chosen = spread(len(held_out), _HELD_OUT)
    asked = _small(np.concatenate([held_out.masks(chosen), synthetic.masks.batch(synthetic.rows)]))
    distances = np.ones(len(asked), dtype=np.float32)
    for first in range(0, len(training), _CHUNK):
        known = _small(training.masks(range(first, min(first + _CHUNK, len(training)))))
        distances = np.minimum(distances, nearest_masks(asked, known, len(training.structures)))
    threshold = alarm_threshold(distances[: len(chosen)], [held_out.rows[int(i)].patient for i in chosen])
    return distances[len(chosen) :] < threshold


def nearest_masks(masks: MaskArray, known: MaskArray, structures: int) -> FloatArray:
    """Distance of each mask to the nearest one in ``known``: 1 - Dice of all structures together; 1 for an empty mask.

    Masks are ``(N, H, W)``.
    """
    ours, theirs = masks.reshape(len(masks), -1), known.reshape(len(known), -1)
    alike = np.zeros((len(ours), len(theirs)), dtype=np.float32)
    for value in range(1, structures + 1):
        alike += (ours == value).astype(np.float32) @ (theirs == value).astype(np.float32).T
    sizes = np.maximum((ours > 0).sum(1)[:, None] + (theirs > 0).sum(1), 1)
    return np.asarray(1 - (2 * alike / sizes).max(1), dtype=np.float32)


def _small(masks: MaskArray) -> MaskArray:
    """Masks reduced to the side of the comparison by nearest neighbour."""
    step = max(1, masks.shape[-1] // _SIDE)
    return np.ascontiguousarray(masks[:, step // 2 :: step, step // 2 :: step])
