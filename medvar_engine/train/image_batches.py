"""The slices of each part of each step, as images: what is encoded while training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.train.batches import Draw, in_hounsfield
from medvar_engine.types import FloatArray


@dataclass(frozen=True)
class ImageBatches:
    """Images, whether they are CT, and which condition each has."""

    data: SliceDataset
    draw: Draw

    def __getitem__(self, key: tuple[int, int]) -> tuple[FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """``(B, 1, H, W)``, which of them are CT ``(B,)``, and the number of each one's kind of slice ``(B,)``."""
        index, _ = self.draw(*key)
        kinds = self.data.conditions.codes[index].astype(np.int64)
        return self.data.batch(index), in_hounsfield(self.data, index), kinds
