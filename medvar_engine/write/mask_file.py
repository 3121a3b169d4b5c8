"""Masks of pictures as files: PNG with a palette, NIfTI label maps, DICOM SEG; and given masks read from such files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray, Structures, to_dicts
from medvar_engine.storage import write_files
from medvar_engine.write.dicom import Study
from medvar_engine.write.dicom_seg import write_seg
from medvar_engine.write.nifti import placement
from medvar_engine.write.open_slice_file import open_nifti, open_png
from medvar_engine.write.picture import Picture
from medvar_engine.write.png import save_png
from medvar_engine.write.provenance import NIFTI_COMMENT, provenance, statement

LABELS = 1002  # NIfTI's intent code of label maps


def mask_path(path: Path, name: str) -> Path:
    """Where the mask of the picture at ``path``, of the format ``name``, is written: beside it."""
    stem = path.name.split(".")[0]
    endings = {"nifti": ".nii.gz", "dicom": ".dcm"}
    return path.with_name(f"{stem}-mask{endings.get(name, '.png')}")


def write_mask(path: Path, name: str, picture: Picture, image: Path, study: Study, number: int) -> list[Path]:
    """Write the mask of a picture that has one, in the format ``name``; gives the files.

    ``image`` is the picture's own file, to which a DICOM SEG refers. Values are numbers of structures; each format
    also has their names and colours.
    """
    if picture.mask is None:
        return []
    match name:
        case "nifti":
            return _write_nifti(path, picture, picture.mask)
        case "dicom":
            return [write_seg(path, picture, image, study, number)]
        case _:
            return [_write_png(path, picture, picture.mask)]


def read_mask(path: Path, structures: Structures, side: int) -> MaskArray:
    """A given mask ``(side, side)``: a PNG with a palette or of gray, or a NIfTI of one slice, as `write_mask` writes.

    Raises `MedvarError` when it is of another size, has values that stand for no structure, or shows none.
    """
    if path.suffix.lower() == ".png":
        with open_png(path) as picture:
            if picture.mode not in ("P", "L", "1"):
                raise MedvarError(
                    f"{path} is a PNG of colours ({picture.mode}); a mask has numbers of structures: a palette or gray."
                )
            values = np.asarray(picture)
    else:
        volume = np.asanyarray(open_nifti(path).dataobj)
        while volume.ndim > 2 and volume.shape[-1] == 1:
            volume = volume[..., 0]
        values = volume.T
    if values.shape != (side, side):
        raise MedvarError(f"{path} is of another size than the model's images: {values.shape}, not {(side, side)}.")
    if not np.array_equal(values, np.rint(values)) or values.min() < 0 or values.max() > len(structures):
        names = ", ".join(f"{value} {one.name}" for value, one in enumerate(structures, 1))
        raise MedvarError(
            f"{path} has the values {values.min():g} to {values.max():g}; a mask for this model has 0, {names}."
        )
    if not values.any():
        raise MedvarError(f"{path} is an empty mask: nothing is labelled in it.")
    return values.astype(np.uint8)


def _write_png(path: Path, picture: Picture, mask: MaskArray) -> Path:
    image = Image.fromarray(mask)  # gray
    palette = [0, 0, 0, *(value for one in picture.structures for value in one.rgb)]
    image.putpalette(palette)
    about = {"Description": statement(picture), "Structures": json.dumps(to_dicts(picture.structures))}
    return save_png(path, image, picture.trace, picture.spacing_mm, about)


def _write_nifti(path: Path, picture: Picture, mask: MaskArray) -> list[Path]:
    import nibabel

    about = provenance(picture) | {"structures": to_dicts(picture.structures)}
    image = nibabel.Nifti1Image(np.ascontiguousarray(mask.T[..., np.newaxis]), None)
    placed = placement(picture)
    image.set_sform(placed, code=1)
    image.set_qform(placed, code=1)
    header: Any = image.header
    header.set_xyzt_units("unknown" if picture.spacing_mm is None else "mm")
    header.set_intent(LABELS)
    header["descrip"] = b"SYNTHETIC mask, MedVAR"
    header.extensions.append(nibabel.nifti1.Nifti1Extension(NIFTI_COMMENT, json.dumps(about).encode()))
    write_files({path: gzip.compress(image.to_bytes(), mtime=0)})
    return [path]
