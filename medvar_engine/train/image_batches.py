"""`ImageBatches`: the slices of each micro-batch as images, for stages that encode them during training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.train.batches import BatchDraw, in_hounsfield
from medvar_engine.types import FloatArray


@dataclass(frozen=True)
class ImageBatches:
    """Batches of images, or of pairs of image and mask, with their modality and slice type."""

    data: SliceDataset
    draw: BatchDraw
    masks: bool = False

    def __getitem__(self, key: tuple[int, int]) -> tuple[FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Images ``(B, 1, H, W)`` or pairs ``(B, 2, H, W)``, whether each is CT ``(B,)``, and slice types ``(B,)``."""
        index, _ = self.draw(*key)
        condition_codes = self.data.conditions.codes[index].astype(np.int64)
        return inputs_of(self.data, index, self.masks), in_hounsfield(self.data, index), condition_codes


def inputs_of(data: SliceDataset, index: npt.NDArray[np.int64], masks: bool) -> FloatArray:
    """The input of a tokenizer for the slices ``index``: images ``(B, 1, H, W)``, or pairs ``(B, 2, H, W)``."""
    return data.pairs(index) if masks else data.batch(index)


def check_structures(data: SliceDataset, structures: tuple[str, ...]) -> None:
    """Raises `MedvarError` when the masks of slices do not have exactly the structures of a model."""
    found = tuple(one.name for one in data.structures)
    if structures and found != structures:
        raise MedvarError(
            f"The model has masks of {', '.join(structures)}, but those of {data.folder} show "
            f"{', '.join(found) or 'no structures'}. Prepare the slices with the same --masks."
        )
