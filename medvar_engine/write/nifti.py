"""Writes images as NIfTI: one slice in physical units, oriented according to its plane."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.storage import write_files
from medvar_engine.write.geometry import corner, directions
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import NIFTI_COMMENT, provenance

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_ENDINGS = (".nii.gz", ".nii")


def write_nifti(path: Path, image: OutputImage) -> list[Path]:
    """Write ``.nii`` or ``.nii.gz`` and a sidecar ``.json`` with the provenance; returns both paths.

    The volume is ``(W, H, 1)``: HU as int16, other units as float32. Lengths are in mm; an unknown spacing is written
    as 1 without a unit. A slice that came from a scan keeps its position; any other is as thick as its pixels are wide,
    and centred on the origin. Raises `MedvarError` for another ending or when the files cannot be written; existing
    files are then unchanged.
    """
    import nibabel

    beside, ending = sidecar(path), _ending(path)
    about = json.dumps(provenance(image))
    volume = nibabel.Nifti1Image(_volume(image), None)
    header = volume.header
    placed = placement(image)
    volume.set_sform(placed, code=1)
    volume.set_qform(placed, code=1)
    header.set_xyzt_units("unknown" if image.spacing_mm is None else "mm")
    header["cal_min"], header["cal_max"] = image.low, image.high
    what = "RECONSTRUCTION" if image.reconstruction else "SYNTHETIC"
    trace = image.trace
    header["descrip"] = f"{what} MedVAR model {trace.bundle_id[:12]} seed {trace.request.seed}".encode()
    header.extensions.append(nibabel.nifti1.Nifti1Extension(NIFTI_COMMENT, about.encode("utf-8")))
    content = volume.to_bytes()
    # Without a time stamp in the archive, so that the same image gives the same file.
    packed = gzip.compress(content, mtime=0) if ending == ".nii.gz" else content
    write_files({path: packed, beside: json.dumps(json.loads(about), indent=1).encode("utf-8")})
    return [path, beside]


def sidecar(path: Path) -> Path:
    """The ``.json`` that `write_nifti` writes beside ``path``."""
    return path.with_name(path.name[: -len(_ending(path))] + ".json")


def _ending(path: Path) -> str:
    for ending in _ENDINGS:
        if path.name.lower().endswith(ending):
            return ending
    raise MedvarError(f"{path} must end in .nii or .nii.gz.")


def placement(image: OutputImage) -> npt.NDArray[np.float64]:
    """The affine from ``(column, row, slice)`` of an image to RAS+ mm: in its scan, or else centred on the origin."""
    if image.place is None:
        return affine(image.plane, image.pixels.shape, image.spacing_mm or 1.0)
    return np.asarray(np.diag([*_LPS_TO_RAS, 1.0]) @ image.place.matrix + 0.0)  # -0 becomes 0


def affine(plane: str, shape: tuple[int, ...], spacing_mm: float) -> npt.NDArray[np.float64]:
    """The affine from ``(column, row, slice)`` of an image of ``shape`` (H, W) to RAS+ mm, centred on the origin.

    Raises `MedvarError` for a plane without known `directions`.
    """
    columns, rows = (axis * _LPS_TO_RAS for axis in directions(plane))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([columns, rows, np.cross(columns, rows)], axis=1) * spacing_mm + 0.0  # -0 becomes 0
    matrix[:3, 3] = corner(plane, shape, spacing_mm) * _LPS_TO_RAS + 0.0
    return matrix


def _volume(image: OutputImage) -> npt.NDArray[np.int16] | npt.NDArray[np.float32]:
    volume = image.values().T[..., np.newaxis]
    if image.unit != "HU":
        return volume
    limits = np.iinfo(np.int16)
    return np.asarray(np.rint(volume).clip(limits.min, limits.max), dtype=np.int16)
