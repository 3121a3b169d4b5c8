"""The kind of a DICOM frame: anatomy, or a phase, a map, a statistic or a screen capture. Only anatomy is used."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Of ImageType and FrameType, from the third value on (PS3.3 C.8.2.1.1.1, C.8.3.1.1.1, C.8.13.1.1.1, C.8.16.1, vendors'
# conformance statements) → what the frame is. A T1 alone says the weighting of anatomy; T1 MAP is the map.
_KINDS = (
    (r"SCREEN.?(SAVE|CAPTURE|SHOT)|PASTED|PROT|CSAPARALLEL|DOSE_INFO|REPORT", "a screen capture, not a scan"),
    (r"LOCALIZER|SCOUT", "LOCALIZER: a planning image, not part of a scan"),
    (r"P|PHASE|PHASE.?MAP|P_.+|PHASE_.+|DELTA_PHASE", "the phase of the signal"),
    (r"R|REAL|R_.+", "the real part of the signal"),
    (r"I|IMAG|IMAGINARY|I_.+", "the imaginary part of the signal"),
    (r"FIELD.?MAP|B0|B0.?MAP|B1|B1.?MAP|FIELD.?MAP_.+", "a field map"),
    (r"VELOCITY.?MAP|FLOW.?MAP", "a velocity map"),
    (r"E?ADC(.?MAP)?|ADC_.+|E?XP_?ADC|EADC.*", "a diffusion coefficient map"),
    (r"G?FA(.?MAP)?|ANISO(TROPY)?|FRACTIONAL_ANISO.*|TENSOR.*|DIFFUSION_ANISO", "a diffusion tensor map"),
    (r"(REL|R)?(CBF|CBV|MTT|TTP|TMAX|PBP|PVM|K2|KTRANS|KEP|VE|VP|IAUC)(.?MAP)?", "a perfusion map"),
    (r"(T1|T2|T2\*|T2.?STAR|T1RHO|R1|R2|R2\*|R2.?STAR|PD|PROTON.?DENSITY).?MAP|R2\*|R2.?STAR", "a relaxation map"),
    (r"QUANT.*|FAT.?FRACTION|FF|METABOLITE.?MAP|QSM|SUSCEPTIBILITY.?MAP|ELASTOGRAM|STIFFNESS.*", "a quantitative map"),
    (r"MAT_(SPECIFIC|FRACTIONAL|VALUE_BASED)|EFF_ATOMIC_NUM|ELECTRON_DENSITY", "a map of material, not HU"),
    (r"[TZF].?(MAP|TEST|STAT)|STD_?DEV.*|SPM|GLM|CORRELATION|BETA.?MAP|FMRI.?MAP", "a statistic"),
)
_PATTERNS = [(re.compile(f"(?:{pattern})"), kind) for pattern, kind in _KINDS]
_COMPONENTS = {
    "PHASE": "the phase of the signal",
    "REAL": "the real part of the signal",
    "IMAGINARY": "the imaginary part of the signal",
}
_UNITS = re.compile(
    r"HZ|1/S|S-1|RAD|MRAD|MILLIRAD.*|DEG|DEGREES?|CM/S|MM/S|M/S|MS|MSEC|S|SEC|PPM|PPB|%|.*MM2/S(EC)?|.*MM\^2/S|UM2/S"
    r"|ML/.*|KPA|PA|1/MIN"
)


def not_anatomy(
    image_type: Sequence[str], component: str | None = None, units: Sequence[str] = (), *, modality: str = "MR"
) -> str | None:
    """The reason why a frame does not show anatomy, by image type, complex component and units; None if it does."""
    names = [name.strip().upper() for name in image_type]
    for name in names[2:]:
        for pattern, kind in _PATTERNS:
            if pattern.fullmatch(name):
                return f"ImageType says {kind}" if kind.startswith("LOCALIZER") else f"ImageType is {name}: {kind}"
    if modality != "MR":
        return None
    if component is not None and (shown := _COMPONENTS.get(component.strip().upper())):
        return f"ComplexImageComponent is {component}: {shown}"
    for unit in units:
        if _UNITS.fullmatch(unit.strip().upper()):
            return f"its values are in {unit}: a map, not the magnitude of the signal"
    return None
