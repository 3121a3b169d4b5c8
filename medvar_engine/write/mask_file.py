"""Writes and reads masks as files: PNG with a palette, NIfTI label maps, and DICOM SEG (written only)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray, Structures, to_dicts
from medvar_engine.storage import write_files
from medvar_engine.write.dicom import Study
from medvar_engine.write.dicom_seg import write_seg
from medvar_engine.write.nifti import affine, placement
from medvar_engine.write.open_slice_file import open_nifti, open_png
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import save_png
from medvar_engine.write.provenance import NIFTI_COMMENT, provenance, statement

LABELS = 1002  # NIfTI's intent code of label maps
_ENDINGS = {"nifti": (".nii.gz", ".nii"), "dicom": (".dcm",)}  # of images; masks have the first


def mask_path(path: Path, name: str) -> Path:
    """The path of the mask beside the image at ``path``, in the format ``name``."""
    endings = _ENDINGS.get(name, (".png",))
    found = next((ending for ending in endings if path.name.lower().endswith(ending)), "")
    # Only the ending is taken off: other dots belong to the name, and two images must not share one mask.
    return path.with_name(f"{path.name[: len(path.name) - len(found)]}-mask{endings[0]}")


def write_mask(path: Path, name: str, image: OutputImage, image_path: Path, study: Study, number: int) -> list[Path]:
    """Write the mask of an image in the format ``name``; returns the files.

    ``image_path`` is the file of the image, to which a DICOM SEG refers. Values are numbers of structures; each format
    also stores their names and colours.
    """
    if image.mask is None:
        return []
    match name:
        case "nifti":
            return _write_nifti(path, image, image.mask)
        case "dicom":
            return [write_seg(path, image, image_path, study, number)]
        case _:
            return [_write_png(path, image, image.mask)]


def read_mask(path: Path, structures: Structures, side: int) -> MaskArray:
    """Read a mask ``(side, side)`` from a PNG (palette or grey) or a NIfTI file of one slice, see `write_mask`.

    NIfTI is turned by its header: another program may have stored its axes in other directions.

    Raises `MedvarError` when it has another size, values that are not numbers of structures, or no structure at all.
    """
    try:
        values = _png_values(path) if path.suffix.lower() == ".png" else _upright(open_nifti(path))
    except MedvarError:
        raise
    except Exception as error:  # what decoders raise for damaged files is of many kinds
        reason = " ".join(str(error).split())
        raise MedvarError(f"{path} cannot be read; it may be damaged or incomplete: {reason}") from error
    if values.shape != (side, side):
        raise MedvarError(f"{path} has another size than the model's images: {values.shape}, not {(side, side)}.")
    if values.dtype.kind not in "buif":
        raise MedvarError(f"{path} holds colours or complex numbers. A mask must hold numbers of structures.")
    if (fractions := values[values != np.rint(values)]).size:
        raise MedvarError(f"{path} has the value {fractions[0]:g}. A mask must hold whole numbers of structures.")
    if values.min() < 0 or values.max() > len(structures):
        names = ", ".join(f"{value} {one.name}" for value, one in enumerate(structures, 1))
        raise MedvarError(
            f"{path} has values from {values.min():g} to {values.max():g}, but a mask for this model has 0, {names}."
        )
    if not values.any():
        raise MedvarError(f"{path} is an empty mask without any structure.")
    return values.astype(np.uint8)


def _png_values(path: Path) -> npt.NDArray[Any]:
    with open_png(path) as opened:
        if opened.mode not in ("P", "L", "1", "I;16", "I"):
            raise MedvarError(
                f"{path} is a colour PNG ({opened.mode}). A mask must hold numbers of structures, as palette or grey."
            )
        return np.asarray(opened)


def _upright(image: Any) -> npt.NDArray[Any]:
    """The slice ``(H, W)`` of a NIfTI file, turned as slices are written; as it is stored if it has no position."""
    from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

    volume = np.asanyarray(image.dataobj)
    while volume.ndim > 3 and volume.shape[-1] == 1:
        volume = volume[..., 0]
    volume = volume[..., np.newaxis] if volume.ndim == 2 else volume
    stored = io_orientation(image.affine)
    positioned = image.header["sform_code"] > 0 or image.header["qform_code"] > 0
    if volume.ndim == 3 and 1 in volume.shape and positioned and np.isfinite(stored).all():
        across = int(stored[volume.shape.index(1), 0])  # the axis of the patient that the slice is perpendicular to
        wanted = io_orientation(affine(("sagittal", "coronal", "axial")[across], (1, 1), 1.0))
        volume = apply_orientation(volume, ornt_transform(stored, wanted))
    turned: npt.NDArray[Any] = volume[..., 0].T if volume.shape[2:] == (1,) else volume
    return turned


def _write_png(path: Path, image: OutputImage, mask: MaskArray) -> Path:
    drawn = Image.fromarray(mask)  # grey
    palette = [0, 0, 0, *(value for one in image.structures for value in one.rgb)]
    drawn.putpalette(palette)
    about = {"Description": statement(image), "Structures": json.dumps(to_dicts(image.structures))}
    return save_png(path, drawn, image.trace, image.spacing_mm, about)


def _write_nifti(path: Path, image: OutputImage, mask: MaskArray) -> list[Path]:
    import nibabel

    about = provenance(image) | {"structures": to_dicts(image.structures)}
    label_map = nibabel.Nifti1Image(np.ascontiguousarray(mask.T[..., np.newaxis]), None)
    placed = placement(image)
    label_map.set_sform(placed, code=1)
    label_map.set_qform(placed, code=1)
    header: Any = label_map.header
    header.set_xyzt_units("unknown" if image.spacing_mm is None else "mm")
    header.set_intent(LABELS)
    header["descrip"] = b"SYNTHETIC mask, MedVAR"
    header.extensions.append(nibabel.nifti1.Nifti1Extension(NIFTI_COMMENT, json.dumps(about).encode()))
    write_files({path: gzip.compress(label_map.to_bytes(), mtime=0)})
    return [path]
