"""Writes the slices of a stack as one NIfTI volume, and their masks as another on the same voxels."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import traces_to_dict
from medvar_engine.masks.structures import to_dicts
from medvar_engine.storage import write_files
from medvar_engine.write.mask_file import LABELS, mask_path
from medvar_engine.write.nifti import placement, sidecar
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import NIFTI_COMMENT, provenance
from medvar_engine.write.written_mask import remove_older_mask


def write_volume(path: Path, images: Sequence[OutputImage]) -> list[Path]:
    """Write ``.nii.gz``, its ``.json``, and a label map if the slices have masks; returns the files.

    The slices must belong to one stack, be in order, and have a position. Values are as in a NIfTI file of one slice.
    The traces of all slices are in the ``.json`` and in the volume; the copy risk there is that of the slice nearest to
    a training slice. Raises `MedvarError` for slices without a position.
    """
    first = images[0]
    if any(one.place is None for one in images):
        raise MedvarError("A volume needs slices with a position: those of a stack.")
    volume = np.stack([one.values().T for one in images], axis=-1)
    if first.unit == "HU":
        limits = np.iinfo(np.int16)
        volume = np.rint(volume).clip(limits.min, limits.max).astype(np.int16)
    nearest = min((one.copy_risk for one in images if one.copy_risk), key=lambda risk: risk.distance, default=None)
    whole = provenance(replace(first, copy_risk=nearest))  # a volume is as near to training slices as its nearest slice
    about = {name: value for name, value in whole.items() if name != "trace"}  # the trace of a single slice
    about |= {"slices": len(images), "traces": traces_to_dict([one.trace for one in images])}
    files = {path: _packed(volume, first, about), sidecar(path): json.dumps(about, indent=1).encode()}
    beside = mask_path(path, "nifti")
    if first.mask is not None:
        masks = np.stack([one.mask.T for one in images if one.mask is not None], axis=-1)
        named = about | {"structures": to_dicts(first.structures)}
        files[beside] = _packed(masks, first, named, labels=True)
    write_files(files)
    if first.mask is None:
        remove_older_mask(beside)
    return list(files)


def _packed(volume: npt.NDArray[Any], first: OutputImage, about: dict[str, Any], *, labels: bool = False) -> bytes:
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(volume), None)
    placed = placement(first)
    image.set_sform(placed, code=1)
    image.set_qform(placed, code=1)
    header: Any = image.header
    header.set_xyzt_units("mm")
    if labels:
        header.set_intent(LABELS)
    else:
        header["cal_min"], header["cal_max"] = first.low, first.high
    header["descrip"] = f"SYNTHETIC stack, MedVAR model {first.trace.bundle_id[:12]}".encode()
    header.extensions.append(nibabel.nifti1.Nifti1Extension(NIFTI_COMMENT, json.dumps(about).encode()))
    return gzip.compress(image.to_bytes(), mtime=0)
