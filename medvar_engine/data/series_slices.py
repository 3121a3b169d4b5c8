"""One series → its harmonised slices: the unit of work of `prepare`. It knows neither shards nor other series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvar_engine.data.codes import CodeArray, encode
from medvar_engine.data.facts import SliceFacts
from medvar_engine.data.fingerprint import fingerprint
from medvar_engine.data.harmonise import REGION_WINDOW, ValueRange, clip_mr, fit_to_matrix, mr_foreground, window_ct
from medvar_engine.data.identity import Identity
from medvar_engine.data.read import Series
from medvar_engine.data.recipe import CT_FOREGROUND_HU, Recipe
from medvar_engine.data.slices import cut
from medvar_engine.data.volume import FloatArray, Volume
from medvar_engine.errors import MedvarError


@dataclass(frozen=True, slots=True, eq=False)
class SeriesSlices:
    """What one series gives: codes ``(N, size, size)``, what each slice is, and remarks for people."""

    codes: CodeArray
    facts: tuple[SliceFacts, ...]
    remarks: tuple[str, ...] = ()


def slices_of(series: Series, identity: Identity, recipe: Recipe, source: Path) -> SeriesSlices:
    """The slices of one series. Names are relative to ``source``.

    Raises `MedvarError` when the series cannot be used, or when none of its slices is worth keeping.
    """
    codes: list[CodeArray] = []
    facts: list[SliceFacts] = []
    shapes = []
    for volume in series.load(phase_step=recipe.phase_step):
        image, values, foreground = _harmonise(volume, identity, recipe.window)
        for part in cut(volume, image, foreground, recipe.rules):
            known = bool(np.isfinite(part.spacing).all())
            fitted, pixel_mm = fit_to_matrix(part.image, part.spacing if known else (1.0, 1.0), recipe.size)
            codes.append(encode(fitted))
            facts.append(
                SliceFacts(
                    patient=identity.patient,
                    modality=identity.modality,
                    region=identity.region,
                    plane=part.plane,
                    dataset=identity.dataset,
                    contrast=identity.contrast,
                    spacing_mm=round(pixel_mm, 5) if known else None,
                    low=round(values.low, 4),
                    high=round(values.high, 4),
                    unit=values.unit,
                    position_mm=round(part.position_mm, 3) if np.isfinite(part.position_mm) else None,
                    series=_series_name(series, volume, source),
                    source=identity.source,
                    licence=identity.licence,
                    fingerprint=fingerprint(fitted),
                )
            )
        sides = "×".join(str(side) for side in volume.array.shape)
        shapes.append(f"{sides} voxels of {'×'.join(f'{side:.2f}' for side in volume.spacing)} mm")
    if not codes:
        rules = recipe.rules
        raise MedvarError(
            f"no slice is worth keeping ({'; '.join(shapes)}): planes need sides of {rules.min_side} pixels, pixels "
            f"at most {rules.max_anisotropy} times as long as wide, and {rules.min_foreground:.0%} of tissue"
        )
    return SeriesSlices(np.stack(codes), tuple(facts))


def relative(path: Path, source: Path) -> str:
    """How ``path`` is named in tables: relative to the folder ``source``."""
    return path.relative_to(source).as_posix() if source.is_dir() and path.is_relative_to(source) else path.name


def _harmonise(volume: Volume, identity: Identity, window: str | None) -> tuple[FloatArray, ValueRange, float]:
    """Image in [-1, 1], the values it stands for, and the value above which a voxel is tissue."""
    if identity.modality == "CT":
        _check_hu(volume)
        image, values = window_ct(volume.array, window or REGION_WINDOW.get(identity.region))
        return image, values, CT_FOREGROUND_HU
    image, values = clip_mr(volume.array)
    return image, values, mr_foreground(volume.array)


def _check_hu(volume: Volume) -> None:
    """Refuse CT that was stored as HU + 1024: its air is at 0, its soft tissue near 1050, and windows would miss it."""
    tissue = volume.array[volume.array > 500]
    if volume.array.min() >= 0 and tissue.size > 0.05 * volume.array.size and 900 < np.median(tissue) < 1300:
        raise MedvarError(
            f"its values are no HU: nothing is below 0, and most tissue is near {np.median(tissue):.0f}; subtract 1024"
        )


def _series_name(one: Series, volume: Volume, source: Path) -> str:
    name = volume.series if one.is_dicom else relative(one.path, source)
    return f"{name} {volume.phase}" if volume.phase else name
