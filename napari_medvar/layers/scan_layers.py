"""`read_scans`: the user's own scans as layers, by the engine's reader.

Layers show a scan in radiological orientation: anterior up in axial slices, the head up in the others, and the
patient's right on the left. The axes of the world run to the feet, to the back and to the patient's left, in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from napari_medvar.layers.layer_data import LayerData
from napari_medvar.layers.scan_metadata import SCAN, ScanOf

if TYPE_CHECKING:
    from medvar_engine.data.read.scans import Series
    from medvar_engine.data.read.volume import Volume

MOST_SCANS = 12  # opened from one folder; more would fill the memory
_SHOWN_REFUSALS = 5
_CT_WINDOW = (-160.0, 240.0)  # HU: soft tissue
_FRAME_OF_REFERENCE = 0x00200052
_STRAIGHT = 1e-3  # tolerance of direction cosines below which a scan counts as not oblique
_LPS_TO_WORLD = np.array([[0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Scans:
    """The layers that were opened, and the reasons why other files were refused."""

    layers: list[LayerData] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def read_scans(source: Path) -> Scans:
    """The scans in a file or below a folder, each as a layer with its original values and positions in mm.

    Only the first time point of a time series is read. Raises `MedvarError`, with the reasons, when nothing can be
    opened.
    """
    try:
        from medvar_engine.data.read.refusal import reason_of
        from medvar_engine.data.read.scans import find_series
    except ImportError as error:
        raise MedvarError(
            f"Opening scans needs {error.name}, which is not installed: pip install 'napari-medvar[napari]'."
        ) from error
    found, refusals = find_series(source, synthetic=True)
    scans = Scans(refused=list(map(str, refusals)))
    for series in found[:MOST_SCANS]:
        try:
            scans.layers.append(_layer(series))
        except Exception as error:  # libraries raise exceptions of any type, and one bad file must not block the others
            scans.refused.append(reason_of(error))
    if len(found) > MOST_SCANS:
        scans.refused.append(f"{source} holds {len(found)} scans, of which the first {MOST_SCANS} were opened.")
    if not scans.layers:
        raise MedvarError(shortened(scans.refused) or f"{source} contains no scan that can be opened.")
    return scans


def shortened(refused: Sequence[str]) -> str:
    """The first refusals, and the number of the others, which are usually similar."""
    more = len(refused) - _SHOWN_REFUSALS
    return "\n".join([*refused[:_SHOWN_REFUSALS], *([f"… and {more} more."] if more > 0 else [])])


def _layer(series: Series) -> LayerData:
    volume = next(series.load(phase_step=2**31, minimum=1))
    array = volume.array[::-1, ::-1, ::-1].transpose(2, 1, 0)  # axes to the feet, to the back, to the left
    name = f"{_name(series)}{f', {volume.phase}' if volume.phase else ''}{' (synthetic)' if series.synthetic else ''}"
    modality = volume.modality or series.modality
    attributes: dict[str, Any] = {"name": name, "colormap": "gray", **_contrast(array, modality)}
    if volume.oriented:
        to_lps = _to_lps(volume)
        scan = ScanOf(to_lps, "HU" if modality == "CT" else "arbitrary", _frame_of_reference(series))
        attributes |= _world(to_lps, array.shape)
        attributes["metadata"] = {SCAN: scan.to_dict(array.shape)}
    return array, attributes, "image"


def _to_lps(volume: Volume) -> npt.NDArray[np.float64]:
    """The affine ``(4, 4)`` from the layer's indices to LPS coordinates in mm."""
    last = np.array(volume.array.shape) - 1
    to_voxel = np.zeros((4, 4))  # the layer's axes are the volume's in reverse order, and each is flipped
    to_voxel[[0, 1, 2], [2, 1, 0]] = -1
    to_voxel[:3, 3], to_voxel[3, 3] = last, 1
    return np.asarray(_RAS_TO_LPS @ volume.affine @ to_voxel)


def _world(to_lps: npt.NDArray[np.float64], shape: tuple[int, ...]) -> dict[str, Any]:
    """Scale and translation of the layer, as napari's layer attributes, in mm.

    napari slices along the axes of the world. An oblique scan is therefore shown without its rotation, with its centre
    in place, so that the acquired slices are seen.
    """
    to_world = _LPS_TO_WORLD @ to_lps
    scale = np.linalg.norm(to_world[:3, :3], axis=0)
    middle = (np.array(shape) - 1) / 2
    oblique = np.abs(to_world[:3, :3] / scale - np.eye(3)).max() > _STRAIGHT
    centre = to_world[:3, :3] @ middle + to_world[:3, 3]
    translate = centre - scale * middle if oblique else to_world[:3, 3]
    return {"scale": scale, "translate": translate, "units": ("mm",) * 3}


def _contrast(array: npt.NDArray[np.float32], modality: str | None) -> dict[str, Any]:
    """Contrast limits: soft tissue for CT; otherwise the range without the darkest and brightest 0.5 %."""
    if modality == "CT":
        return {"contrast_limits": _CT_WINDOW}
    few = array[tuple(slice(None, None, max(1, side // 64)) for side in array.shape)]
    low, high = map(float, np.percentile(few, (0.5, 99.5)))
    return {"contrast_limits": (low, high)} if low < high else {}


def _frame_of_reference(series: Series) -> str | None:
    if not series.is_dicom or series.archive is not None:
        return None
    from medvar_engine.data.read.dicom_file import open_header

    uid = open_header(series.path, [_FRAME_OF_REFERENCE])[0].get("FrameOfReferenceUID")
    return str(uid) if uid else None


def _name(series: Series) -> str:
    """The layer's name: the folder's for DICOM, because its files are often numbered; the file's otherwise."""
    return series.path.parent.name if series.is_dicom and len(series.paths) > 1 else series.path.name
