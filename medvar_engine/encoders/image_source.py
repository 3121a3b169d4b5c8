"""`Images`: a source of slices that are read a few at a time, with a digest for caches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from medvar_engine.encoders.preprocessing import check_slices
from medvar_engine.storage import sha256_of
from medvar_engine.types import FloatArray

if TYPE_CHECKING:
    from medvar_engine.data.dataset import SliceDataset

_CHUNK = 256

Indices = Sequence[int] | npt.NDArray[np.integer]


class Images(Protocol):
    """Slices in [-1, 1], accessed by number."""

    @property
    def digest(self) -> str:
        """A digest that changes when any pixel or the order may have changed."""

    def __len__(self) -> int:
        """The number of slices."""

    def batch(self, indices: Indices) -> FloatArray:
        """The slices ``indices`` as ``(B, H, W)`` float32."""


class PreparedImages:
    """The slices of a `SliceDataset`."""

    def __init__(self, dataset: SliceDataset) -> None:
        self.dataset = dataset
        self.digest = sha256_of(f"{dataset.manifest.digest} {dataset.split}")

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Indices) -> FloatArray:
        """See `Images`."""
        return self.dataset.batch(indices)[:, 0]


class ArrayImages:
    """Slices in an array ``(N, H, W)``, in memory or mapped."""

    def __init__(self, array: FloatArray) -> None:
        self._array = array
        content = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
        for first in range(0, len(array), _CHUNK):
            part = np.ascontiguousarray(array[first : first + _CHUNK])
            check_slices(part)
            content.update(part.data)
        self.digest = content.hexdigest()

    def __len__(self) -> int:
        return len(self._array)

    def batch(self, indices: Indices) -> FloatArray:
        """See `Images`."""
        return np.asarray(self._array[np.asarray(indices, dtype=np.int64)], dtype=np.float32)
