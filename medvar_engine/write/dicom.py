"""Writes images as DICOM: CT, MR or Secondary Capture, always marked as synthetic.

Standard: DICOM 2025, PS3.3 A.3 (CT), A.4 (MR), A.8.1 (Secondary Capture), C.12.1.1 (Synthetic Data, Contributing
Equipment). A generated slice has no neighbours, so each image is a separate series with its own frame of reference,
so that no viewer combines two of them to one body. Only a slice that came from a scan has the scan's frame of
reference, so that viewers can overlay both. The images of a dataset share one study.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medvar_engine.errors import MedvarError
from medvar_engine.storage import sha256_of, write_files
from medvar_engine.write.geometry import corner, directions
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import (
    DICOM_CREATOR,
    DICOM_GROUP,
    DICOM_PIXELS,
    DICOM_TRACE,
    SOFTWARE,
    about_pixels,
    origin,
    statement,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CT, _MR, _CAPTURE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7"
_MR_BITS = 12
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://arxiv.org/abs/2602.14512")
_ENDINGS = (".dcm", ".dicom")


@dataclass(frozen=True, slots=True)
class Study:
    """The study that images are written into. Equal studies give equal files."""

    name: str  # becomes the study ID and the patient ID, so that images written together are found together
    when: datetime = field(default_factory=datetime.now)

    @property
    def identifier(self) -> str:
        """An identifier of up to 16 characters, the limit of a Short String (PS3.5 6.2)."""
        return sha256_of(self.name)[:12].upper()


def write_dicom(path: Path, image: OutputImage, study: Study | None = None, number: int = 1) -> Path:
    """Write ``.dcm`` and return its path; ``number`` is the number of the image in its study.

    CT is written in HU, MR with 12 bits from black to white. An image of another modality, or without a pixel spacing,
    becomes an 8-bit Secondary Capture. Raises `MedvarError` for another ending, or when the file cannot be written; an
    existing file is then unchanged.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    if path.suffix.lower() not in _ENDINGS:
        raise MedvarError(f"{path} must end in .dcm.")
    study = study or Study(path.name)
    dataset = _general(image, study, number)
    match modality_of(image):
        case "CT":
            _as_ct(dataset, image)
        case "MR":
            _as_mr(dataset, image)
        case _:
            _as_capture(dataset, image)
    marks = [name for name, there in image.marks.to_dict().items() if there]
    which = ("image", study.name, study.when.isoformat(), str(number), image.trace.to_json(), *marks)
    dataset.SOPInstanceUID = uid(*which)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    write_files({path: buffer.getvalue()})
    return path


def modality_of(image: OutputImage) -> str | None:
    """``CT`` or ``MR``; None for other modalities or an unknown spacing, which become a Secondary Capture."""
    modality = image.trace.request.condition.modality
    if image.spacing_mm is None or (modality == "CT" and image.unit != "HU"):
        return None
    return modality if modality in ("CT", "MR") else None


def _general(image: OutputImage, study: Study, number: int) -> Dataset:
    """The attributes of images of all SOP classes."""
    from pydicom.dataset import Dataset

    trace = image.trace
    condition = trace.request.condition
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    what = "RECONSTRUCTION" if image.reconstruction else "SYNTHETIC"
    dataset.SyntheticData = "NO" if image.reconstruction else "YES"
    dataset.PatientName = f"{what}^MEDVAR"
    dataset.PatientID = f"{what}-{study.identifier}"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.PatientComments = origin(image)
    dataset.StudyInstanceUID = uid("study", study.name, study.when.isoformat())
    dataset.StudyID = study.identifier
    dataset.StudyDate = dataset.ContentDate = study.when.strftime("%Y%m%d")
    dataset.StudyTime = dataset.ContentTime = study.when.strftime("%H%M%S")
    dataset.StudyDescription = f"{what} images, MedVAR"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.SeriesInstanceUID = uid("series", study.name, study.when.isoformat(), str(number))
    dataset.SeriesNumber, dataset.InstanceNumber = number, 1
    if trace.request.stack is not None:  # the slices of a stack are one series
        dataset.SeriesInstanceUID = uid("series of a stack", study.name, study.when.isoformat())
        dataset.SeriesNumber, dataset.InstanceNumber = 1, trace.request.stack.slice + 1
    shared = condition if trace.request.stack is None else replace(condition, position=None)
    dataset.SeriesDescription = f"{what} {shared}"[:64]
    dataset.PatientOrientation = ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "napari-medvar", f"MedVAR {trace.bundle_id[:12]}"
    dataset.SoftwareVersions = SOFTWARE
    dataset.BurnedInAnnotation = "YES" if image.marks.burned_in else "NO"
    dataset.ImageComments = f"{what}. {statement(image)}"
    made = f"model sha256 {trace.bundle_id}, condition {condition}, seed {trace.request.seed}"
    dataset.DerivationDescription = f"{origin(image)} {SOFTWARE}, {made}."
    if condition.region:
        dataset.BodyPartExamined = condition.region.upper().replace("-", "")[:16]
    dataset.ContributingEquipmentSequence = [_equipment(image)]
    block = dataset.private_block(DICOM_GROUP, DICOM_CREATOR, create=True)
    block.add_new(DICOM_TRACE, "UT", trace.to_json())
    block.add_new(DICOM_PIXELS, "UT", json.dumps(about_pixels(image)))
    return dataset


def _equipment(image: OutputImage) -> Dataset:
    """Contributing Equipment, with a purpose from PS3.16 CID 7005."""
    from pydicom.dataset import Dataset

    purpose = Dataset()
    purpose.CodeValue, purpose.CodeMeaning = "109100", "Synthesizing Equipment"
    if image.reconstruction:
        purpose.CodeValue, purpose.CodeMeaning = "109103", "Modifying Equipment"
    purpose.CodingSchemeDesignator = "DCM"
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    equipment.Manufacturer, equipment.ManufacturerModelName = "napari-medvar", "MedVAR"
    equipment.SoftwareVersions = SOFTWARE
    done = "Reconstructed" if image.reconstruction else "Generated"
    equipment.ContributionDescription = f"{done} by the model of sha256 {image.trace.bundle_id}"
    return equipment


def _as_ct(dataset: Dataset, image: OutputImage) -> None:
    dataset.SOPClassUID, dataset.Modality = _CT, "CT"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.KVP, dataset.AcquisitionNumber = None, None
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
    limits = np.iinfo(np.int16)
    hu = np.rint(image.values()).clip(limits.min, limits.max).astype("<i2")
    _place(dataset, image)
    _pixels(dataset, hu, bits=16, window=(image.low, image.high))


def _as_mr(dataset: Dataset, image: OutputImage) -> None:
    dataset.SOPClassUID, dataset.Modality = _MR, "MR"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", None
    dataset.MRAcquisitionType = "2D"
    dataset.EchoTime = dataset.RepetitionTime = dataset.EchoTrainLength = None
    white = 2**_MR_BITS - 1
    _place(dataset, image)
    _pixels(dataset, np.rint(image.share() * white).astype("<u2"), bits=_MR_BITS, window=(0, white))


def _as_capture(dataset: Dataset, image: OutputImage) -> None:
    dataset.SOPClassUID, dataset.Modality = _CAPTURE, "OT"
    dataset.ConversionType, dataset.Laterality = "SYN", ""
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    if image.spacing_mm is not None:
        dataset.NominalScannedPixelSpacing = [_decimal(image.spacing_mm)] * 2
    _pixels(dataset, image.grey(), bits=8, window=(0, 255))


def _place(dataset: Dataset, image: OutputImage) -> None:
    """Image Plane (PS3.3 C.7.6.2): the position in the scan, or else centred on the origin."""
    dataset.FrameOfReferenceUID = uid("place", dataset.SeriesInstanceUID)
    dataset.PositionReferenceIndicator = dataset.PatientPosition = ""
    if (place := image.place) is not None:
        columns, rows = place.directions
        width, height, thickness = place.sides
        dataset.FrameOfReferenceUID = place.frame_of_reference or dataset.FrameOfReferenceUID
        dataset.ImageOrientationPatient = [_decimal(value + 0.0) for value in (*columns, *rows)]
        dataset.ImagePositionPatient = [_decimal(value) for value in place.matrix[:3, 3]]
        dataset.PixelSpacing = [_decimal(height), _decimal(width)]
        dataset.SliceThickness = _decimal(thickness)
        return
    spacing = image.spacing_mm or 1.0
    columns, rows = directions(image.plane)
    dataset.ImageOrientationPatient = [_decimal(value) for value in (*columns, *rows)]
    dataset.ImagePositionPatient = [_decimal(value) for value in corner(image.plane, image.pixels.shape, spacing)]
    dataset.PixelSpacing = [_decimal(spacing)] * 2
    dataset.SliceThickness = _decimal(spacing)


def _pixels(
    dataset: Dataset,
    values: npt.NDArray[np.int16] | npt.NDArray[np.uint16] | npt.NDArray[np.uint8],
    *,
    bits: int,
    window: tuple[float, float],
) -> None:
    """Image Pixel and VOI LUT (PS3.3 C.7.6.3, C.11.2)."""
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = values.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(values.dtype, np.signedinteger))
    dataset.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    dataset["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    low, high = window  # the linear function of C.11.2.1.2 spans the width minus 1
    dataset.WindowCenter, dataset.WindowWidth = _decimal((low + high + 1) / 2), _decimal(high - low + 1)


def _decimal(value: float) -> str:
    """A Decimal String of at most 16 characters (PS3.5 6.2)."""
    return f"{float(value):.10g}"


def uid(*what: str) -> str:
    """A UID from a UUID (PS3.5 B.2) of its arguments, so that the same image in the same study gives the same file."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(what)).int}"
