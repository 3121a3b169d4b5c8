"""The slices of each part of each step, as images: what is encoded while training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.train.batches import Draw, in_hounsfield
from medvar_engine.types import FloatArray


@dataclass(frozen=True)
class ImageBatches:
    """Images, or pairs of image and mask, whether they are CT, and which condition each has."""

    data: SliceDataset
    draw: Draw
    masks: bool = False

    def __getitem__(self, key: tuple[int, int]) -> tuple[FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Images ``(B, 1, H, W)`` or pairs ``(B, 2, H, W)``, which are CT ``(B,)``, and the kind of each ``(B,)``."""
        index, _ = self.draw(*key)
        kinds = self.data.conditions.codes[index].astype(np.int64)
        return inputs_of(self.data, index, self.masks), in_hounsfield(self.data, index), kinds


def inputs_of(data: SliceDataset, index: npt.NDArray[np.int64], masks: bool) -> FloatArray:
    """What a tokenizer encodes of the slices ``index``: images ``(B, 1, H, W)``, or pairs ``(B, 2, H, W)``."""
    return data.pairs(index) if masks else data.batch(index)


def check_structures(data: SliceDataset, structures: tuple[str, ...]) -> None:
    """Raises `MedvarError` when the masks of slices do not show the structures that a model knows."""
    found = tuple(one.name for one in data.structures)
    if structures and found != structures:
        raise MedvarError(
            f"The model learns masks of {', '.join(structures)}, but those of {data.folder} show "
            f"{', '.join(found) or 'nothing, for there are none'}. Prepare the slices with the same --masks."
        )
