"""Reads the label map of a scan as an array on the voxels of the scan, and refuses one that does not match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvar_engine.data.masks.label_files import LabelFile, ScanLabels
from medvar_engine.data.masks.segmentation_object import read_segments
from medvar_engine.data.read import read_itk, read_nifti
from medvar_engine.data.read.assumed_geometry import NOTHING, Assumed
from medvar_engine.data.read.orientation import to_ras
from medvar_engine.data.read.read_nifti import NIFTI_SUFFIXES
from medvar_engine.data.read.volume import Volume
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray

_LARGEST = 2**16 - 1  # largest label
_OFF = 0.1  # largest distance between voxels of label map and scan, as a fraction of a voxel

Grid = tuple[NDArray[np.float32], NDArray[np.float64]]
"""Labels (X, Y, Z) in the closest RAS+ orientation, and their affine to RAS mm."""


def read_mask(labels: ScanLabels, volume: Volume, assumed: Assumed = NOTHING) -> MaskArray:
    """The label map of ``volume``, of its shape (X, Y, Z): values as `ScanLabels` says.

    The voxels of the label map must have the size and the positions of those of the scan, and cover the whole scan. It
    may extend beyond the scan, and its axes may be stored in another order. DICOM SEG leaves out empty slices, and need
    not cover the scan.

    Raises `MedvarError` with the name of the file, when a label map does not match the scan or has unknown values, when
    two files label the same voxel, and when nothing is labelled.
    """
    mask = np.zeros(volume.array.shape, dtype=np.uint8)
    owners = np.zeros(volume.array.shape, dtype=np.uint16)
    for number, file in enumerate(labels.files, 1):
        if isinstance(file, LabelFile):
            grid = _read(file.path, assumed)
            found = _on_scan(grid, volume, file.path, covers=True)
            values = _values(file, found, labels.named_by)
        else:
            values = np.zeros(volume.array.shape, dtype=np.uint8)
            for segment, array, affine in read_segments(file):
                here = _on_scan(to_ras(array, affine, file.path)[:2], volume, file.path, covers=False) > 0
                _refuse_overlap(int((values[here] > 0).sum()), f"{file.path}: its segments", "one segment")
                values[here] = segment
        claimed = values > 0
        if (twice := owners[claimed]).any():
            other = labels.files[int(twice.max()) - 1].path
            _refuse_overlap(int((twice > 0).sum()), f"{file.path} and {other.name}", "one of them")
        mask[claimed], owners[claimed] = values[claimed], number
    if not mask.any():
        raise MedvarError(f"{_named(labels)}: nothing is labelled in it; a scan without a structure is left out.")
    return mask


def _read(path: Path, assumed: Assumed) -> Grid:
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        array, affine = read_nifti.read(path, assumed, labels=True)
    else:
        array, affine = read_itk.read(path, assumed, labels=True)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or array.size == 0:
        raise MedvarError(f"{path}: a label map of 3 dimensions is expected, but the shape is {array.shape}.")
    turned, turned_affine, _ = to_ras(array, affine, path)
    return turned, turned_affine


def _on_scan(grid: Grid, volume: Volume, path: Path, *, covers: bool) -> NDArray[np.float32]:
    """The labels at the voxels of the scan; 0 outside the label map."""
    array, affine = grid
    shape = np.array(volume.array.shape)
    if not volume.oriented:
        raise MedvarError(f"{path}: the scan has no orientation, so no label map can be matched to it.")
    step = np.linalg.inv(volume.affine) @ affine  # from voxels of the label map to those of the scan
    shift = np.rint(step[:3, 3])
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(array.shape) - 1)
    off = np.abs(corners @ (step[:3, :3] - np.eye(3)).T + (step[:3, 3] - shift)).max()
    low, high = shift.astype(np.int64), shift.astype(np.int64) + array.shape
    if off > _OFF or (covers and ((low > 0).any() or (high < shape).any())):
        raise MedvarError(
            f"{path}: its voxels do not match those of its scan: {_extent(array.shape, affine)} against "
            f"{_extent(shape, volume.affine)} "
            "of the scan. Resample it to the voxels of the scan by nearest neighbour, or correct its header."
        )
    if not covers and ((low < 0).any() or (high > shape).any()):
        raise MedvarError(f"{path}: it extends beyond its scan. Does it belong to another series?")
    placed = np.zeros(volume.array.shape, dtype=np.float32)
    inside, own = [], []
    for start, end, side in zip(low.tolist(), high.tolist(), shape.tolist(), strict=True):
        inside.append(slice(max(start, 0), min(end, side)))
        own.append(slice(max(start, 0) - start, min(end, side) - start))
    placed[tuple(inside)] = array[tuple(own)]
    return placed


def _values(file: LabelFile, found: NDArray[np.float32], named_by: str) -> MaskArray:
    whole = np.rint(found)
    if (odd := found[found != whole]).size:
        raise MedvarError(f"{file.path}: a label map has whole numbers, but it has {odd[0]:g}.")
    if whole.min() < 0 or whole.max() > _LARGEST:
        raise MedvarError(
            f"{file.path}: labels are numbers from 0 to {_LARGEST}, but it has {whole.min():g} to {whole.max():g}."
        )
    if file.single is not None:
        return np.where(whole > 0, np.uint8(file.single), np.uint8(0))
    numbers = whole.astype(np.uint16)
    there = np.flatnonzero(np.bincount(numbers.ravel())).tolist()
    if unknown := [one for one in there if one != 0 and one not in file.values]:
        names = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise MedvarError(f"{file.path}: it has the labels {names}, which {named_by} does not name.")
    table = np.zeros(max(there) + 1, dtype=np.uint8)
    for one in there:
        table[one] = file.values.get(one, 0)
    return np.asarray(table[numbers])


def _refuse_overlap(voxels: int, who: str, one: str) -> None:
    if voxels:
        raise MedvarError(f"{who} share {voxels} voxels, but each voxel must belong to {one} only.")


def _extent(shape: NDArray[np.int64] | tuple[int, ...], affine: NDArray[np.float64]) -> str:
    sides = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    corner = ", ".join(f"{one:.1f}" for one in affine[:3, 3])
    return f"{'×'.join(map(str, shape))} voxels of {'×'.join(f'{one:.2f}' for one in sides)} mm from ({corner})"


def _named(labels: ScanLabels) -> str:
    return str(labels.files[0].path) + (f" and {len(labels.files) - 1} more" if len(labels.files) > 1 else "")
