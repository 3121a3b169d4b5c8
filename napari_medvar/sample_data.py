"""napari's sample data: a synthetic image scale by scale, and a real slice to encode. Neither needs a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.request import Request
from medvar_engine.write.contact_sheet import scale_labels
from napari_medvar.layers.layer_data import LayerData, layer_data
from napari_medvar.session.generation_session import GenerationSession

SAMPLES = Path(__file__).parent / "samples"
ATTRIBUTION = "One slice of example4d of nibabel (https://nipy.org/nibabel), MIT licence; see samples/ATTRIBUTION.md."
_CHEST = Condition("CT", "chest", "axial")
_SEED = 9  # one of the better images of the shipped model


def growing_chest() -> list[LayerData]:
    """The previews of all scales of one image as layers, the finest visible. The shipped model generates them."""
    session = GenerationSession()
    bundle = session.load().bundle
    list(session.generate(Request(_CHEST, _SEED, bundle.sampling)))
    previews = sorted(session.previews(), key=lambda preview: preview.k)  # all with the trace of the finished image
    return [
        layer_data(preview, bundle, f"chest CT, {label}", visible=preview.k == len(bundle.schedule) - 1)
        for preview, label in zip(previews, scale_labels(bundle.schedule), strict=True)
    ]


def real_brain() -> list[LayerData]:
    """An axial brain MR slice in radiological orientation: anterior up, the patient's right on the left."""
    import nibabel

    path = SAMPLES / "brain_mr.nii.gz"
    try:
        image = nibabel.Nifti1Image.from_filename(path)
        volume = np.asanyarray(image.dataobj)  # (right, anterior, 1)
    except (OSError, EOFError, nibabel.filebasedimages.ImageFileError) as error:
        raise MedvarError(f"Cannot read {path}, a file of napari-medvar: {error}. Install it again.") from error
    pixels = volume[::-1, ::-1, 0].T
    column, row = (float(side) for side in image.header.get_zooms()[:2])
    limits = [0.0, float(np.percentile(pixels, 99.5))]
    attributes = {
        "name": "brain MR, real",
        "scale": (row, column),
        "units": ("mm", "mm"),
        "contrast_limits": limits,
        "colormap": "gray",
        "metadata": {"attribution": ATTRIBUTION, "modality": "MR", "region": "brain", "plane": "axial"},
    }
    return [(pixels, attributes, "image")]
