"""`SliceFacts`: the metadata of one slice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """The metadata of one slice. Lengths are in mm; ``low`` and ``high`` are the values of -1 and 1 in ``unit``.

    ``spacing_mm`` (square pixels) and ``position_mm`` (RAS, along the normal) are None if unknown. ``fingerprint`` is
    that of `medvar_engine.data.duplicates.fingerprint`. ``position`` is that of `medvar_engine.conditions.Condition`;
    None for a slice that was not cut from a volume.
    """

    patient: str
    modality: str
    region: str | None
    plane: str | None
    dataset: str | None
    contrast: str | None
    spacing_mm: float | None
    low: float
    high: float
    unit: str
    position_mm: float | None
    series: str
    source: str
    licence: str
    fingerprint: bytes
    position: float | None = None
