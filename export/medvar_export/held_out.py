"""The real slices on which an export is compared with torch."""

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
    """The same up to 32 slices of held-out patients each time; None when there are none.

    With ``masks`` they are pairs. Raises `MedvarError` if the slices have another size.
    """
    if "test" not in Manifest.read(folder).split.values():
        return None
    dataset = SliceDataset(folder, split="test")
    if dataset.size != image_size:
        raise MedvarError(
            f"The slices of {folder} have {dataset.size} pixels per side, but those of the model {image_size}. Give "
            "the folder that it was trained on."
        )
    chosen = np.random.default_rng(0).permutation(len(dataset))[:SLICES]
    # The condition as in training; slices may have further factors, such as their data set.
    conditions = [labels.known(dataset.conditions[int(i)]) for i in chosen]
    images = dataset.pairs(chosen) if masks else dataset.batch(chosen)
    return HeldOut(images, np.array([labels.encode(own) for own in conditions], dtype=np.int64))
