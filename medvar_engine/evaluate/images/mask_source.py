"""`Masks`: the masks of images by number, from prepared slices, shards and files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.image_source import Indices
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.set_rows import SetRows
from medvar_engine.masks.structures import MaskArray, Structures
from medvar_engine.sets.image_set import ImageSet
from medvar_engine.write.written_mask import read_written_mask

_ENDING = re.compile(r"(\.png|\.nii(\.gz)?|\.dcm|\.dicom)$", re.IGNORECASE)
_BIDS = re.compile(r"_(ct|mri|image)$")


class Masks(Protocol):
    """Masks of images, by number."""

    @property
    def structures(self) -> Structures:
        """The structures, in the order of their values from 1 up."""

    def batch(self, indices: Indices) -> MaskArray:
        """The masks of images ``indices``: ``(B, H, W)`` uint8."""


class PreparedMasks:
    """The masks of the slices of a `SliceDataset` with masks."""

    def __init__(self, dataset: SliceDataset) -> None:
        self.structures, self._dataset = dataset.structures, dataset

    def batch(self, indices: Indices) -> MaskArray:
        """See `Masks`."""
        return self._dataset.masks(np.asarray(indices, dtype=np.int64))


class FileMasks:
    """Files with the mask of one image each."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises `MedvarError` when a file is not a mask, or has other structures than the first."""
        self._files = files
        _, self.structures = read_written_mask(files[0])

    def batch(self, indices: Indices) -> MaskArray:
        """See `Masks`. Raises `MedvarError` when a file cannot be read."""
        return np.stack([self._read(self._files[int(i)]) for i in indices])

    def _read(self, file: Path) -> MaskArray:
        mask, structures = read_written_mask(file)
        if [one.name for one in structures] != [one.name for one in self.structures]:
            raise MedvarError(f"{file} shows other structures than {self._files[0]}. Evaluate them separately.")
        return mask


class SetMasks:
    """The masks of a set of shards, without those of images that are withheld."""

    def __init__(self, source: ImageSet) -> None:
        self.structures, self._source, self._rows = source.structures, source, SetRows(source)

    def batch(self, indices: Indices) -> MaskArray:
        """See `Masks`."""
        return np.stack([self._source.masks(unit)[row] for unit, row in self._rows.find(indices)])


def mask_beside(image: Path) -> Path | None:
    """The path of the mask of an image file in any layout that medvar writes; None if there is no mask."""
    ending = _ENDING.search(image.name)
    if ending is None:
        return None
    stem, end, folder = image.name[: ending.start()], ending.group(), image.parent
    places = [folder / f"{stem}-mask{end}", folder / f"{_BIDS.sub('_dseg', stem)}{end}"]
    match folder.name, folder.parent.name:
        case "imagesTr", _:
            places.append(folder.parent / "labelsTr" / f"{stem.removesuffix('_0000')}{end}")
        case label, "images":
            places.append(folder.parent.parent / "masks" / label / image.name)
        case "images", _:
            places.append(folder.parent / "masks" / image.name)
    return next((place for place in places if place != image and place.is_file()), None)
