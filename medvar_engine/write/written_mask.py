"""Masks that `medvar_engine.write.mask_file` wrote, read back with the names of their structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray, Structures, from_dicts, structures_of
from medvar_engine.storage import remove_older
from medvar_engine.untrusted import plain_json
from medvar_engine.write.compare import read_pixels
from medvar_engine.write.dicom_seg import MANUFACTURER
from medvar_engine.write.open_slice_file import open_dicom, open_nifti, open_png
from medvar_engine.write.provenance import NIFTI_COMMENT, kind_of

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"  # SOP class of a DICOM SEG

_Found = tuple[npt.NDArray[Any], Structures]


def read_written_mask(path: Path) -> tuple[MaskArray, Structures]:
    """A mask ``(H, W)`` and what its values stand for: a PNG, a NIfTI of one slice, or a DICOM SEG.

    Raises `MedvarError` when the file cannot be read, or is no mask that medvar wrote.
    """
    values, structures = _read(path)
    if values.ndim != 2:
        raise MedvarError(f"{path} is the mask of a volume, where that of one slice is expected.")
    return values.astype(np.uint8), structures


def remove_older_mask(path: Path) -> None:
    """Remove the mask of an older image, which would be taken for that of the new one; a file of other origin stays."""
    remove_older(path, _read)


def _read(path: Path) -> _Found:
    """Values ``(H, W)`` of a slice, or ``(N, H, W)`` of a volume, and structures. Raises `MedvarError`."""
    try:
        values, structures = {"png": _png, "nifti": _nifti, "dicom": _seg}[kind_of(path)](path)
        if values.dtype.kind not in "ui" or not 0 <= values.min() <= values.max() <= len(structures):
            raise ValueError(f"its values are not numbers of {len(structures)} structures")
    except MedvarError:
        raise
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:  # libraries raise many kinds on damaged files
        raise MedvarError(f"{path} is no mask that medvar wrote ({error!r}).") from error
    return values, structures


def _png(path: Path) -> _Found:
    with open_png(path) as image:
        named = image.info["Structures"]
    return read_pixels(path, "png"), from_dicts(plain_json.loads(named))


def _nifti(path: Path) -> _Found:
    comment = next(one.text for one in open_nifti(path).header.extensions if one.get_code() == NIFTI_COMMENT)
    values = read_pixels(path, "nifti")
    if values.shape[2:] == (1,):
        values = values[..., 0]
    return values.T, from_dicts(plain_json.loads(comment.rstrip("\0"))["structures"])


def _seg(path: Path) -> _Found:
    dataset = open_dicom(path)
    if dataset.SOPClassUID != SEGMENTATION:
        raise ValueError("it is no segmentation")
    if dataset.Manufacturer != MANUFACTURER:
        raise ValueError("another program wrote this segmentation")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:  # some decoders crash on damaged data
        raise ValueError("segments are read uncompressed only")
    mask = np.zeros((dataset.Rows, dataset.Columns), dtype=np.uint8)
    frames = dataset.pixel_array.reshape(-1, *mask.shape)
    for frame, about in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        mask[frame > 0] = about.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return mask, structures_of(str(one.SegmentLabel) for one in dataset.SegmentSequence)
