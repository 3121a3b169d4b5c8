"""Real slices on which an export is compared with torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medvar_engine.conditions import LabelSpace
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import Manifest
from medvar_engine.errors import MedvarError
from medvar_export.parity import HeldOut

SLICES = 32


def held_out_slices(folder: Path, labels: LabelSpace, image_size: int, *, masks: bool = False) -> HeldOut | None:
    """Up to 32 slices of patients that were not trained on, always the same; None when none is held out.

    With ``masks`` they are pairs.
    """
    if "test" not in Manifest.read(folder).split.values():
        return None
    dataset = SliceDataset(folder, split="test")
    if dataset.size != image_size:
        raise MedvarError(
            f"The slices of {folder} have {dataset.size} pixels a side, but the model {image_size}: give the folder "
            "that it was trained on."
        )
    chosen = np.random.default_rng(0).permutation(len(dataset))[:SLICES]
    # What the model was trained under; the slices may say more, such as their data set.
    conditions = [labels.known(dataset.conditions[int(i)]) for i in chosen]
    images = dataset.pairs(chosen) if masks else dataset.batch(chosen)
    return HeldOut(images, np.array([labels.encode(own) for own in conditions], dtype=np.int64))
