"""Masks that may be copies of training masks: nearer to one than nearly all masks of held-out patients are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.evaluate.memorisation import alarm_threshold
from medvar_engine.evaluate.pairs.segmenter import Pairs
from medvar_engine.masks.structures import MaskArray
from medvar_engine.train.batches import spread
from medvar_engine.types import FloatArray

_SIDE = 64  # pixels at which masks are compared
_HELD_OUT = 2000  # held-out masks that set the threshold, at most
_CHUNK = 1024  # training masks that are in memory together


def copied_masks(synthetic: Pairs, training: SliceDataset, held_out: SliceDataset) -> npt.NDArray[np.bool_]:
    """Which masks are nearer to a training mask than all but 3 % of held-out masks are, every patient counting alike.

    Empty masks are no copies: many slices show no structure.
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
    """Distance of each mask to the nearest of ``known``: 1 less the Dice of all structures together; 1 of an empty one.

    Masks are ``(N, H, W)``.
    """
    ours, theirs = masks.reshape(len(masks), -1), known.reshape(len(known), -1)
    alike = np.zeros((len(ours), len(theirs)), dtype=np.float32)
    for value in range(1, structures + 1):
        alike += (ours == value).astype(np.float32) @ (theirs == value).astype(np.float32).T
    sizes = np.maximum((ours > 0).sum(1)[:, None] + (theirs > 0).sum(1), 1)
    return np.asarray(1 - (2 * alike / sizes).max(1), dtype=np.float32)


def _small(masks: MaskArray) -> MaskArray:
    """By nearest neighbour, where masks are larger."""
    step = max(1, masks.shape[-1] // _SIDE)
    return np.ascontiguousarray(masks[:, step // 2 :: step, step // 2 :: step])
