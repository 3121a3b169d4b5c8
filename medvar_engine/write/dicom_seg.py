"""Writes masks as DICOM segmentations (SEG, PS3.3 A.51) with highdicom, which refer to the DICOM file of the image."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.storage import write_files
from medvar_engine.write.dicom import Study, modality_of, uid
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import SOFTWARE

MANUFACTURER = "napari-medvar"
_SERIES = 5000  # added to the series number of the image


def check_place(image: OutputImage) -> None:
    """Raise `MedvarError` for an image with a mask that becomes a Secondary Capture, which has no position."""
    if image.mask is not None and modality_of(image) is None:
        raise MedvarError(
            "A mask in DICOM needs a CT or MR image of known pixel size, but the modality or the pixel size of "
            "this image is not known. Name the modality, if the model knows it, or write PNG or NIfTI."
        )


def write_seg(path: Path, image: OutputImage, image_path: Path, study: Study, number: int) -> Path:
    """Write the mask of an image as ``.dcm``; ``image_path`` is the DICOM file of the image.

    Equal studies give equal files. Raises `MedvarError` as `check_place` does.
    """
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    check_place(image)
    if image.mask is None:
        raise MedvarError(f"{path}: the image has no mask.")
    source = pydicom.dcmread(image_path)
    made_by = highdicom.AlgorithmIdentificationSequence(
        f"MedVAR {image.trace.bundle_id[:12]}", codes.cid7162.ArtificialIntelligence, SOFTWARE
    )
    described = [
        highdicom.seg.SegmentDescription(
            value,
            structure.name,
            codes.SCT.AnatomicalStructure,
            codes.SCT.AnatomicalStructure,
            highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            made_by,
            tracking_uid=None,
            display_color=highdicom.color.CIELabColor.from_rgb(*structure.rgb),
        )
        for value, structure in enumerate(image.structures, 1)
    ]
    which = ("mask", study.name, study.when.isoformat(), str(number), image.trace.to_json())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an empty mask, and about missing names of persons
        segmentation: Any = highdicom.seg.Segmentation(
            source_images=[source],
            pixel_array=np.ascontiguousarray(image.mask[np.newaxis]),
            segmentation_type="BINARY",
            segment_descriptions=described,
            series_instance_uid=uid("series", *which),
            series_number=_SERIES + number,
            sop_instance_uid=uid(*which),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=f"MedVAR {image.trace.bundle_id[:12]}",
            software_versions=SOFTWARE,
            device_serial_number="none",
            content_label="SYNTHETIC",
            content_description="SYNTHETIC mask of a synthetic image",
        )
    segmentation.SyntheticData = source.SyntheticData
    segmentation.SeriesDescription = f"SYNTHETIC mask of {source.SeriesDescription}"[:64]
    segmentation.ContributingEquipmentSequence = source.ContributingEquipmentSequence
    for name in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        if name in segmentation:
            setattr(segmentation, name, source.ContentDate)
    for name in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        if name in segmentation:
            setattr(segmentation, name, source.ContentTime)
    for element in segmentation.iterall():
        if element.keyword == "DimensionOrganizationUID":  # highdicom uses a random one
            element.value = uid("dimensions", *which)
    buffer = BytesIO()
    segmentation.save_as(buffer, enforce_file_format=True)
    write_files({path: buffer.getvalue()})
    return path
