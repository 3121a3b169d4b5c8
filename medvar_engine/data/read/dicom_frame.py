"""`FrameTags`: what a DICOM file says of one of its frames, be it classic, enhanced or legacy converted."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom.dataset import Dataset

from medvar_engine.data.read.dicom_file import floats_of, is_said, value_of
from medvar_engine.errors import MedvarError

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

# Attribute → the functional group macro that has it (PS3.3 C.7.6.16.2, C.8.13.5, C.8.15.3).
_MACROS = {
    "ImagePositionPatient": ("PlanePositionSequence",),
    "ImageOrientationPatient": ("PlaneOrientationSequence",),
    "PixelSpacing": ("PixelMeasuresSequence",),
    "SliceThickness": ("PixelMeasuresSequence",),
    "RescaleSlope": ("PixelValueTransformationSequence",),
    "RescaleIntercept": ("PixelValueTransformationSequence",),
    "RescaleType": ("PixelValueTransformationSequence",),
    "MeasurementUnitsCodeSequence": ("RealWorldValueMappingSequence",),
    "FrameType": ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence"),
    "ComplexImageComponent": ("MRImageFrameTypeSequence",),
    "DimensionIndexValues": ("FrameContentSequence",),
    "TemporalPositionIndex": ("FrameContentSequence",),
    "FrameAcquisitionNumber": ("FrameContentSequence",),
    "FrameAcquisitionDateTime": ("FrameContentSequence",),
    "TemporalPositionTimeOffset": ("TemporalPositionSequence",),
    "NominalCardiacTriggerDelayTime": ("CardiacSynchronizationSequence",),
    "DiffusionBValue": ("MRDiffusionSequence",),
    "DiffusionGradientDirectionSequence": ("MRDiffusionSequence",),
    "EffectiveEchoTime": ("MREchoSequence",),
}
# What a legacy converted object has of the classic ones without a macro for it (PS3.3 A.70, A.71).
_UNASSIGNED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")

# Vendor → its private creator, and the tags of b-value and gradient direction, as dcm2niix knows them too.
_PRIVATE = (
    ("SIEMENS", 0x00190010, 0x0019100C, (0x0019100E,)),
    ("GEMS", 0x00430010, 0x00431039, (0x001910BB, 0x001910BC, 0x001910BD)),
    ("PHILIPS", 0x20010010, 0x20011003, (0x200510B0, 0x200510B1, 0x200510B2)),
    ("IMAGE PRIVATE HEADER", 0x00650010, 0x00651009, (0x00651037,)),  # United Imaging
)
# GE's ImageType is the same for all parts of the complex signal; this says which it is.
_GE_CREATOR, _GE_PART = 0x00430010, 0x0043102F
_GE_PARTS = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
PRIVATE_TAGS = sorted(
    {tag for _, creator, value, direction in _PRIVATE for tag in (creator, value, *direction)} | {_GE_PART}
)


class FrameTags:
    """Attributes of one frame: in its functional groups, in those that all frames share, or in the data set itself."""

    def __init__(self, path: Path, dataset: Dataset, index: int = 0) -> None:
        self.dataset = dataset
        self._items: list[Dataset] = []
        if is_said(dataset, GROUPS[1]):
            groups, count = value_of(dataset, GROUPS[1]), int(value_of(dataset, "NumberOfFrames") or 1)
            if len(groups) != count:
                raise MedvarError(f"{path}: {count} frames, but functional groups for {len(groups)}.")
            self._items = [groups[index], *(value_of(dataset, GROUPS[0]) or [])[:1]]

    def get(self, keyword: str) -> object:
        """The value, or None."""
        for name in (*_MACROS.get(keyword, ()), *_UNASSIGNED):
            for item in self._items:
                found = value_of(item, name)
                if found and (value := value_of(found[0], keyword)) is not None:
                    return value
        return value_of(self.dataset, keyword)

    def number(self, *keywords: str) -> float | None:
        """The first number that one of ``keywords`` has."""
        for keyword in keywords:
            numbers = floats_of(self.get(keyword))
            if numbers:
                return numbers[0]
        return None

    def diffusion(self) -> tuple[float | None, tuple[float, ...] | None]:
        """b-value in s/mm² and gradient direction (3); None where the scan has none, or nobody says."""
        b_value = self.number("DiffusionBValue")
        direction = floats_of(self.get("DiffusionGradientOrientation"))
        nested = self.get("DiffusionGradientDirectionSequence")
        if direction is None and nested:
            direction = floats_of(nested[0].get("DiffusionGradientOrientation"))  # type: ignore[index]
        for vendor, creator, tag, tags in _PRIVATE:
            if b_value is None and vendor in str(self._private(creator) or "").upper():
                b_value = (_numbers(self._private(tag)) or (None,))[0]
                if b_value is not None and vendor == "GEMS":
                    b_value %= 1e6  # GE adds 10⁹ to some
                direction = direction or tuple(n for one in tags for n in _numbers(self._private(one))) or None
        if direction is not None and (not any(direction) or (b_value is not None and b_value < 1)):
            direction = None
        return b_value, direction and tuple(round(one, 3) for one in direction)

    def component(self) -> str | None:
        """Which part of the complex signal a frame shows, in the terms of Complex Image Component; None if not said."""
        said = self.get("ComplexImageComponent")
        if said is not None:
            return str(said)
        if "GEMS" not in str(self._private(_GE_CREATOR) or "").upper():
            return None
        part = self._private(_GE_PART)
        number = int.from_bytes(part[:2], "little") if isinstance(part, bytes) else part
        return _GE_PARTS.get(number) if isinstance(number, int) else None

    def _private(self, tag: int) -> object:
        return self.dataset[tag].value if tag in self.dataset else None


def _numbers(value: object) -> tuple[float, ...]:
    """A private value as numbers, also when implicit VR left it as bytes."""
    try:
        if not isinstance(value, bytes):
            return floats_of(value) or ()
        text = value.strip(b" \0")
        if text and all(byte in b"0123456789+-.eE\\ " for byte in text):
            return tuple(float(one) for one in text.split(b"\\"))
        kind = "d" if len(value) % 8 == 0 else "f"
        return struct.unpack(f"<{len(value) // struct.calcsize(kind)}{kind}", value) if value else ()
    except (ValueError, struct.error):
        return ()
