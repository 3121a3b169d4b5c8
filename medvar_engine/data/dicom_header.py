"""DICOM headers: which files are images that may be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from medvar_engine.data.dicom_file import floats_of, modality_of, open_dicom, values_of
from medvar_engine.data.refusal import MADE_BY_A_MODEL
from medvar_engine.errors import MedvarError

REGION_OF_BODY_PART = {
    "abdomen": "abdomen",
    "liver": "abdomen",
    "kidney": "abdomen",
    "pancreas": "abdomen",
    "spleen": "abdomen",
    "chest": "chest",
    "thorax": "chest",
    "lung": "chest",
    "heart": "heart",
    "cardiac": "heart",
    "brain": "brain",
    "head": "brain",
    "prostate": "prostate",
    "spine": "spine",
    "cspine": "spine",
    "tspine": "spine",
    "lspine": "spine",
    "sspine": "spine",
}

# Of these, images of one scan have one value, or each its own.
SPLITTERS = (
    "FrameOfReferenceUID", "AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue",
    "TriggerTime", "AcquisitionTime",
)  # fmt: skip

_TAGS = [
    *SPLITTERS,
    "SOPClassUID", "ImageType", "BurnedInAnnotation", "Modality", "BodyPartExamined", "PatientID", "StudyInstanceUID",
    "SeriesInstanceUID", "ImageOrientationPatient", "ImagePositionPatient", "Rows", "Columns",
    "NumberOfFrames", "PhotometricInterpretation", "ModalityLUTSequence", "SyntheticData",
    "ContributingEquipmentSequence",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What grouping needs of one file, and nothing else of its header.

    ``kind`` is its matrix and ImageType; ``values`` are those of `SPLITTERS`, as text. ``synthetic`` is whether it says
    that a generative model made it.
    """

    path: Path
    series_uid: str
    modality: str
    region: str | None
    patient: str
    patient_guessed: bool
    frames: int
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    kind: str
    values: dict[str, str]
    synthetic: bool


def read_header(path: Path, *, synthetic: bool = False) -> Header:
    """The header of one file.

    Raises `MedvarError` for files that are no CT or MR image, that may name a person, or that say a generative model
    made them, unless ``synthetic`` asks for these.
    """
    dataset = open_dicom(path, _TAGS)
    try:
        with disable_value_validation():
            made = _says_synthetic(dataset)
            if made and not synthetic:
                raise MedvarError(MADE_BY_A_MODEL)
            return _check(path, dataset, made)
    except MedvarError:
        raise
    except Exception as error:  # values are converted only when they are asked for, and fail in many ways
        raise MedvarError(f"a value in its header is missing or malformed ({error!r})") from error


def _says_synthetic(dataset: Dataset) -> bool:
    """By Synthetic Data (0008,001C), or Contributing Equipment of purpose (109100, DCM, Synthesizing Equipment)."""
    said = str(dataset.get("SyntheticData") or "NO").strip().upper() == "YES"
    for equipment in dataset.get("ContributingEquipmentSequence") or ():
        for purpose in equipment.get("PurposeOfReferenceCodeSequence") or ():
            said |= (purpose.get("CodeValue"), purpose.get("CodingSchemeDesignator")) == ("109100", "DCM")
    return said


def _check(path: Path, dataset: Dataset, synthetic: bool) -> Header:
    if "SOPClassUID" not in dataset or "Rows" not in dataset or "SeriesInstanceUID" not in dataset:
        raise MedvarError("it is not a DICOM image: SOPClassUID, SeriesInstanceUID or Rows is missing")
    image_type = [str(value).upper() for value in values_of(dataset.get("ImageType"))]
    modality = modality_of(dataset)
    burned_in = str(dataset.get("BurnedInAnnotation") or "NO").upper()
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if synthetic and "Secondary Capture" in dataset.SOPClassUID.name:
        raise MedvarError(
            "a synthetic secondary capture (SOPClassUID): its modality or the size of its pixels is not known. Ask for "
            "a modality; where the bundle does not know the size, make slices of a set of shards with `to_slices`"
        )
    if synthetic and burned_in != "NO":
        raise MedvarError(
            f"BurnedInAnnotation is {burned_in}: a model would learn what is written into its pixels. Generate it "
            "without --burn-in"
        )
    if "Secondary Capture" in dataset.SOPClassUID.name:
        raise MedvarError("a secondary capture (SOPClassUID) may show names in its pixels and holds no measured values")
    if burned_in != "NO":
        raise MedvarError(f"BurnedInAnnotation is {burned_in}: its pixels may name the patient")
    if modality not in ("CT", "MR"):
        raise MedvarError(f"Modality is {modality or 'missing'}; CT and MR are used")
    if "LOCALIZER" in image_type or "SCOUT" in image_type:
        raise MedvarError("ImageType says LOCALIZER: a planning image, not part of a scan")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise MedvarError(f"PhotometricInterpretation is {photometric or 'missing'}; MONOCHROME1 or 2 is expected")
    if "ModalityLUTSequence" in dataset:
        raise MedvarError("its values are given by a ModalityLUTSequence, which is not supported")
    body_part = str(dataset.get("BodyPartExamined") or "").lower()
    patient = str(dataset.get("PatientID") or "").strip()
    return Header(
        path,
        str(dataset.SeriesInstanceUID),
        modality,
        REGION_OF_BODY_PART.get(body_part),
        patient or f"study-{str(dataset.get('StudyInstanceUID', dataset.SeriesInstanceUID))[-16:]}",
        not patient,
        int(dataset.get("NumberOfFrames") or 1),
        floats_of(dataset.get("ImageOrientationPatient")),
        floats_of(dataset.get("ImagePositionPatient")),
        f"{dataset.Rows} × {dataset.get('Columns')} {image_type}",
        {name: str(dataset.get(name)) for name in SPLITTERS},
        synthetic,
    )
