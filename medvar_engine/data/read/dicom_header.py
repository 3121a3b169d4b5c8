"""Reads DICOM headers, and decides which files and frames are usable images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRSpectroscopyStorage,
    ParametricMapStorage,
    RawDataStorage,
    SegmentationStorage,
)

from medvar_engine.data.read import dicom_mosaic, dicom_stored
from medvar_engine.data.read.dicom_file import floats_of, has_attribute, modality_of, open_header, value_of, values_of
from medvar_engine.data.read.dicom_frame import GROUPS, PRIVATE_TAGS, FrameTags
from medvar_engine.data.read.dicom_kind import not_anatomy
from medvar_engine.data.read.dicom_stored import Scale, StoredPixels, scale_of, stored_of
from medvar_engine.data.read.dicom_turn import UNTURNED, Turn
from medvar_engine.data.read.refusal import MADE_BY_A_MODEL
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

Value = str | float | tuple[object, ...] | None
"""A hashable value that may distinguish images at one position."""

_ENHANCED = (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
)

# Objects of these modalities that are not images of anatomy (PS3.3 A.36.3, A.37, A.51, A.75) → what they are.
_NO_IMAGES = {
    ParametricMapStorage: "a parametric map",
    SegmentationStorage: "a segmentation",
    UID("1.2.840.10008.5.1.4.1.1.66.7"): "a label map",
    MRSpectroscopyStorage: "spectra",
    RawDataStorage: "raw data",
}

_KEYWORDS: tuple[str | int, ...] = (
    *GROUPS, *PRIVATE_TAGS, *dicom_stored.TAGS, *dicom_mosaic.TAGS,
    "SOPClassUID", "SOPInstanceUID", "ImageType", "BurnedInAnnotation", "Modality", "BodyPartExamined", "PatientID",
    "StudyInstanceUID", "SeriesInstanceUID", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing",
    "ModalityLUTSequence", "SyntheticData", "ContributingEquipmentSequence", "FrameOfReferenceUID", "AcquisitionNumber",
    "EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "DiffusionGradientOrientation",
    "TriggerTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "InstanceNumber",
    "ComplexImageComponent", "RescaleSlope", "RescaleIntercept", "RescaleType", "SliceThickness",
    "SpacingBetweenSlices",
)  # fmt: skip
_TAGS = tuple(Tag(one) for one in _KEYWORDS)

_NO_UNITS = ("1", "[arb'U]", "{counts}")


@dataclass(frozen=True, slots=True)
class Header:
    """The attributes of one frame that are needed to group frames and to read pixels.

    ``index`` is the index of the frame in its file; ``cine`` marks a classic multi-frame file, which has no positions
    of frames. ``values`` may distinguish images at one position, with the names of
    `medvar_engine.data.read.dicom_group`. ``synthetic`` is whether the file is marked as made by a generative model.
    ``stored`` describes the pixels of the file, and ``turn`` how they are turned to get orientation and position.
    """

    path: Path
    index: int
    instance_uid: str
    series_uid: str
    modality: str
    region: str | None
    patient: str
    patient_guessed: bool
    cine: bool
    matrix: tuple[int, int]
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None
    values: dict[str, Value]
    synthetic: bool
    stored: StoredPixels
    scale: Scale
    turn: Turn = UNTURNED

    @property
    def b_value(self) -> float | None:
        """The b-value of a diffusion image in s/mm²; None otherwise."""
        diffusion = self.values["b-value and direction"]
        return diffusion[0] if isinstance(diffusion, tuple) and isinstance(diffusion[0], float) else None


def read_headers(path: Path, *, synthetic: bool = False) -> tuple[list[Header], list[str]]:
    """Read the headers of the frames of one file, and the reasons why frames are left out.

    Raises `MedvarError` for files that are not CT or MR images of anatomy, that may show a name, or that are marked as
    made by a generative model, unless ``synthetic`` accepts these.
    """
    dataset, element = open_header(path, _TAGS)
    try:
        with disable_value_validation():
            made = _is_marked_synthetic(dataset)
            if made and not synthetic:
                raise MedvarError(MADE_BY_A_MODEL)
            _check(dataset, made)
            return _frames(path, dataset, stored_of(dataset, element), made)
    except MedvarError:
        raise
    except Exception as error:  # values are converted on access, which can raise many exceptions
        raise MedvarError(f"a value in its header is missing or malformed ({error!r})") from error


def _is_marked_synthetic(dataset: Dataset) -> bool:
    """Whether a file is marked as made by a generative model.

    The mark is Synthetic Data (0008,001C), or Contributing Equipment with the purpose (109100, DCM, Synthesizing
    Equipment). A reconstruction of a real image by MedVAR counts as well.
    """
    said = str(value_of(dataset, "SyntheticData") or "NO").strip().upper() == "YES"
    for equipment in value_of(dataset, "ContributingEquipmentSequence") or ():
        for purpose in value_of(equipment, "PurposeOfReferenceCodeSequence") or ():
            said |= (value_of(purpose, "CodeValue"), value_of(purpose, "CodingSchemeDesignator")) == ("109100", "DCM")
        said |= value_of(equipment, "ManufacturerModelName") == "MedVAR"
    return said


def _check(dataset: Dataset, synthetic: bool) -> None:
    shown = _NO_IMAGES.get(UID(str(value_of(dataset, "SOPClassUID") or "")))
    if shown is not None:
        raise MedvarError(f"SOPClassUID says {shown}, not an image of anatomy")
    if not all(has_attribute(dataset, one) for one in ("SOPClassUID", "Rows", "SeriesInstanceUID")):
        raise MedvarError("it is not a DICOM image: SOPClassUID, SeriesInstanceUID or Rows is missing")
    modality, kind = modality_of(dataset), UID(value_of(dataset, "SOPClassUID"))
    burned_in = str(value_of(dataset, "BurnedInAnnotation") or "NO").upper()
    photometric = str(value_of(dataset, "PhotometricInterpretation") or "")
    if synthetic and "Secondary Capture" in kind.name:
        raise MedvarError(
            "a synthetic secondary capture (SOPClassUID): its modality or the size of its pixels is not known. Ask for "
            "a modality; where the bundle does not know the size, make slices from a dataset of shards with `to_slices`"
        )
    if synthetic and burned_in != "NO":
        raise MedvarError(
            f"BurnedInAnnotation is {burned_in}: a model would learn the letters in its pixels. Generate it "
            "without --burn-in"
        )
    if "Secondary Capture" in kind.name:
        raise MedvarError("a secondary capture (SOPClassUID) may show names in its pixels and holds no measured values")
    if burned_in != "NO":
        raise MedvarError(f"BurnedInAnnotation is {burned_in}: its pixels may name the patient")
    if modality not in ("CT", "MR"):
        raise MedvarError(f"Modality is {modality or 'missing'}; CT and MR are used")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise MedvarError(f"PhotometricInterpretation is {photometric or 'missing'}; MONOCHROME1 or 2 is expected")
    if has_attribute(dataset, "ModalityLUTSequence"):
        raise MedvarError("its values are given by a ModalityLUTSequence, which is not supported")
    if kind in _ENHANCED and not has_attribute(dataset, GROUPS[1]):
        raise MedvarError("its functional groups are missing, so its frames have no position")


def _frames(path: Path, dataset: Dataset, stored: StoredPixels, synthetic: bool) -> tuple[list[Header], list[str]]:
    """A header for each frame of anatomy, and the reasons for left-out frames. Raises `MedvarError` if all are."""
    count = stored.frames
    cine = count > 1 and not has_attribute(dataset, GROUPS[1])
    headers: list[Header] = []
    refused: Counter[str] = Counter()
    for index in range(1 if cine else count):
        tags = FrameTags(path, dataset, index)
        reason = _not_anatomy(tags)
        if reason is not None:
            refused[reason] += 1
            continue
        header = _header(path, tags, index, stored, cine=cine, synthetic=synthetic)
        headers += _tiles(header, dataset) if "MOSAIC" in _types(tags) else [header]
    if not headers:
        raise MedvarError("; ".join(refused))
    return headers, [f"{number} of {count} frames are left out: {reason}" for reason, number in refused.items()]


def _tiles(whole: Header, dataset: Dataset) -> Iterator[Header]:
    """A header for each slice of a mosaic."""
    mosaic = dicom_mosaic.mosaic_of(dataset)
    rows, columns = (side // mosaic.side for side in whole.matrix)
    stored = replace(whole.stored, tiles=mosaic.side)
    for tile in range(mosaic.count):
        yield replace(
            whole,
            index=tile,
            matrix=(rows, columns),
            position=mosaic.position(tile, dataset),
            values=whole.values | {"instance number": (whole.values["instance number"], float(tile))},
            stored=stored,
        )


def _types(tags: FrameTags) -> list[str]:
    return [str(value).strip().upper() for value in values_of(tags.get("FrameType") or tags.get("ImageType"))]


def _not_anatomy(tags: FrameTags) -> str | None:
    units = [str(tags.get("RescaleType") or "")]
    for code in tags.get("MeasurementUnitsCodeSequence") or ():  # type: ignore[attr-defined]
        units += [str(value_of(code, "CodeValue") or "")]
    return not_anatomy(
        _types(tags),
        tags.component(),
        [unit for unit in units if unit not in _NO_UNITS],
        modality=modality_of(tags.dataset),
    )


def _header(path: Path, tags: FrameTags, index: int, stored: StoredPixels, *, cine: bool, synthetic: bool) -> Header:
    dataset = tags.dataset
    body_part = str(value_of(dataset, "BodyPartExamined") or "").lower()
    patient = str(value_of(dataset, "PatientID") or "").strip()
    study, series = value_of(dataset, "StudyInstanceUID"), str(value_of(dataset, "SeriesInstanceUID"))
    return Header(
        path,
        index,
        str(value_of(dataset, "SOPInstanceUID")),
        series,
        modality_of(dataset),
        REGION_OF_BODY_PART.get(body_part),
        patient or f"study-{str(study or series)[-16:]}",
        not patient,
        cine,
        (stored.rows, stored.columns),
        floats_of(tags.get("ImageOrientationPatient")),
        floats_of(tags.get("ImagePositionPatient")),
        floats_of(tags.get("PixelSpacing")),
        tags.number("SliceThickness"),
        _values(tags, index),
        synthetic,
        stored,
        scale_of(tags),
    )


def _time(tags: FrameTags) -> Value:
    """The date and the time of day of the acquisition; None if both are unknown."""
    both = str(tags.get("FrameAcquisitionDateTime") or tags.get("AcquisitionDateTime") or "")
    day, time = (both[:8], both[8:]) if both else (str(tags.get(f"Acquisition{one}") or "") for one in ("Date", "Time"))
    return (day, time) if day or time else None


def _values(tags: FrameTags, index: int) -> dict[str, Value]:
    b_value, direction = tags.diffusion()
    numbers = floats_of(tags.get("InstanceNumber")) or ()
    return {
        "temporal position": tags.number(
            "TemporalPositionIdentifier", "TemporalPositionIndex", "TemporalPositionTimeOffset"
        ),
        "trigger time": tags.number("TriggerTime", "NominalCardiacTriggerDelayTime"),
        "b-value and direction": None if b_value is None and direction is None else (b_value, direction),
        "echo": (tags.number("EchoNumbers"), tags.number("EchoTime", "EffectiveEchoTime")),
        "image type": "\\".join(_types(tags)),
        "frame of reference": str(value_of(tags.dataset, "FrameOfReferenceUID")),
        "acquisition number": tags.number("FrameAcquisitionNumber", "AcquisitionNumber"),
        "acquisition time": _time(tags),
        "instance number": (*numbers, *(floats_of(tags.get("DimensionIndexValues")) or ()), float(index)),
    }
