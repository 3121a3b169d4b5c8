"""`FrameTags`: the attributes of one frame of a classic, enhanced or legacy converted DICOM file."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

from pydicom.dataset import Dataset

from medvar_engine.data.read.dicom_file import floats_of, has_attribute, value_of, values_of
from medvar_engine.data.read.dicom_mosaic import CSA_HEADER
from medvar_engine.errors import MedvarError

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

# Attribute → its functional group macro (PS3.3 C.7.6.16.2, C.8.13.5, C.8.15.3).
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
# Attributes of classic objects that legacy converted objects keep without a macro (PS3.3 A.70, A.71).
_UNASSIGNED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")

# Private elements: how their creator's name begins, their group, and the elements in the creator's block.
_Private = tuple[str, int, tuple[int, ...]]
# b-value and gradient direction, as dcm2niix knows them too; the last is United Imaging's.
_DIFFUSION: tuple[tuple[_Private, _Private], ...] = (
    (("SIEMENS", 0x0019, (0x0C,)), ("SIEMENS", 0x0019, (0x0E,))),
    (("GEMS", 0x0043, (0x39,)), ("GEMS", 0x0019, (0xBB, 0xBC, 0xBD))),
    (("PHILIPS", 0x2001, (0x03,)), ("PHILIPS MR IMAGING DD 001", 0x2005, (0xB0, 0xB1, 0xB2))),
    (("IMAGE PRIVATE HEADER", 0x0065, (0x09,)), ("IMAGE PRIVATE HEADER", 0x0065, (0x37,))),
)
# GE's ImageType is the same for all parts of the complex signal; this attribute distinguishes them.
_GE_PART: _Private = ("GEMS", 0x0043, (0x2F,))
_GE_PARTS = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
_BLOCKS = range(0x10, 0x14)  # a creator may reserve any block of its group (PS3.5 7.8.1); these are looked at
PRIVATE_TAGS = sorted(
    {
        group << 16 | element
        for _, group, elements in (_GE_PART, *(one for pair in _DIFFUSION for one in pair))
        for block in _BLOCKS
        for element in (block, *(block << 8 | one for one in elements))
    }
)


class FrameTags:
    """Attributes of one frame: in its functional groups, in those that all frames share, or in the data set itself."""

    def __init__(self, path: Path, dataset: Dataset, index: int = 0) -> None:
        self.dataset = dataset
        self._creators = list(filter(_is_creator, dataset.keys()))
        self._items: list[Dataset] = []
        if has_attribute(dataset, GROUPS[1]):
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
        """The first number of the attributes ``keywords``; None if there is none."""
        for keyword in keywords:
            numbers = floats_of(self.get(keyword))
            if numbers:
                return numbers[0]
        return None

    def diffusion(self) -> tuple[float | None, tuple[float, ...] | None]:
        """The b-value in s/mm² and the gradient direction (3); None if unknown or not a diffusion scan."""
        b_value = self.number("DiffusionBValue")
        direction = floats_of(self.get("DiffusionGradientOrientation"))
        nested = self.get("DiffusionGradientDirectionSequence")
        if direction is None and nested:
            direction = floats_of(value_of(nested[0], "DiffusionGradientOrientation"))  # type: ignore[index]
        for of_value, of_direction in _DIFFUSION if b_value is None and self._creators else ():
            for number in self._numbers(of_value)[:1]:
                b_value = number % 1e6 if of_value[0] == "GEMS" else number  # GE adds 10⁹ to some b-values
                direction = direction or self._numbers(of_direction) or None
        if b_value is None and "DIFFUSION" in values_of(self.get("ImageType")):
            b_value, direction = _of_csa(self.dataset)
        if direction is not None and (not any(direction) or (b_value is not None and b_value < 1)):
            direction = None
        return b_value, direction and tuple(round(one, 3) for one in direction)

    def component(self) -> str | None:
        """The part of the complex signal, in the terms of Complex Image Component; None if unknown."""
        said = self.get("ComplexImageComponent")
        if said is not None:
            return str(said)
        for part in self._private(_GE_PART):
            number = int.from_bytes(part[:2], "little") if isinstance(part, bytes) else part
            return _GE_PARTS.get(number) if isinstance(number, int) else None
        return None

    def _numbers(self, private: _Private) -> tuple[float, ...]:
        return tuple(number for value in self._private(private) for number in _numbers(value))

    def _private(self, private: _Private) -> list[object]:
        """The values of the private elements that exist, in whichever block their creator has reserved."""
        creator, group, elements = private
        for tag in self._creators:
            if tag >> 16 == group and str(value_of(self.dataset, tag)).upper().startswith(creator):
                tags = (tag & 0xFFFF0000 | (tag & 0xFF) << 8 | one for one in elements)
                return [value_of(self.dataset, one) for one in tags if one in self.dataset]
        return []


def _is_creator(tag: int) -> bool:
    """Whether an element names the creator that has reserved a block of private elements."""
    return bool(tag & 0x10000) and tag & 0xFFFF in _BLOCKS


def _of_csa(dataset: Dataset) -> tuple[float | None, tuple[float, ...] | None]:
    """b-value and gradient direction of older Siemens scanners, which store them only in the CSA header."""
    if CSA_HEADER not in dataset:
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its readers of DICOM experimental
        from nibabel.nicom import csareader
    try:
        header = csareader.read(dataset[CSA_HEADER].value)  # type: ignore[no-untyped-call]
        b_value = csareader.get_scalar(header, "B_value")  # type: ignore[no-untyped-call]
        direction = csareader.get_vector(header, "DiffusionGradientDirection", 3)  # type: ignore[no-untyped-call]
    except Exception:  # a damaged header raises many exceptions; other attributes may distinguish the images
        return None, None
    return None if b_value is None else float(b_value), None if direction is None else tuple(map(float, direction))


def _numbers(value: object) -> tuple[float, ...]:
    """A private value as numbers, also if it was read as bytes from implicit VR."""
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
