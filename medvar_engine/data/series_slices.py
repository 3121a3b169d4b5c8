"""Makes the harmonised slices of one series, a work unit of `prepare`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np

from medvar_engine.data.duplicates.fingerprint import fingerprints
from medvar_engine.data.harmonise.harmonise import harmonise, treat_face
from medvar_engine.data.harmonise.hounsfield import check_hu
from medvar_engine.data.harmonise.matrix import fitting_pixel, resample
from medvar_engine.data.harmonise.nearest import resample_nearest
from medvar_engine.data.harmonise.slice_recipe import Recipe
from medvar_engine.data.harmonise.slicing import Slab, cut, view
from medvar_engine.data.identity.series_identity import Identity
from medvar_engine.data.masks.label_files import ScanLabels
from medvar_engine.data.masks.read_mask import read_mask
from medvar_engine.data.near_duplicates import distinct
from medvar_engine.data.read.scans import Series
from medvar_engine.data.read.volume import Volume
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.errors import MedvarError
from medvar_engine.masks.structures import MaskArray
from medvar_engine.types import FloatArray
from medvar_engine.value_range import CodeArray, ValueRange, encode

_PHASE = re.compile(r"phase (\d+) of (\d+)")


@dataclass(frozen=True, slots=True, eq=False)
class SeriesSlices:
    """The slices of one series: codes ``(N, size, size)``, metadata of each slice, and remarks for users.

    ``left_out`` are files that could not be used, by their names relative to the source, with the reasons.
    ``masks`` have the shape of ``codes``; None if the scan has no label map.
    """

    codes: CodeArray
    facts: tuple[SliceFacts, ...]
    remarks: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    masks: MaskArray | None = None


def slices_of(
    series: Series, identity: Identity, recipe: Recipe, source: Path, labels: ScanLabels | None = None
) -> SeriesSlices:
    """Cut one series found in ``source`` into harmonised slices with the condition of ``identity``.

    With ``labels`` each slice has a mask. Raises `MedvarError` when the series cannot be used, or when none of its
    slices meets the rules.
    """
    codes: list[CodeArray] = []
    facts: list[SliceFacts] = []
    masks: list[MaskArray] = []
    shapes: list[str] = []
    remarks = [*series.remarks(phase_step=recipe.phase_step, diffusion=recipe.diffusion)]
    for volume, contrast in _volumes(series, identity, recipe):
        if labels is not None and volume.phase is not None and not identity.channels:
            raise MedvarError(
                f"{series.path}: it has several time points, so a single label map cannot fit all of them."
            )
        label_map = None if labels is None else read_mask(labels, volume, series.assumed)
        if identity.modality == "CT" and not series.synthetic:
            check_hu(volume, window_stated=recipe.window is not None or identity.region in recipe.windows)
        volume, remark = treat_face(volume, identity.region, recipe.faces)
        remarks += [one for one in (remark, *volume.remarks) if one is not None and one not in remarks]
        scan = harmonise(volume, identity.modality, identity.region, recipe)
        shown = replace(identity, contrast=contrast, series=_name(volume, identity))
        for slab in cut(volume, scan.foreground, recipe.rules):
            fitted, pixel_mm = to_matrix(scan.values.to_image(slab.images), slab.spacing, recipe)
            codes.append(np.ascontiguousarray(encode(fitted)))
            facts += _facts(shown, scan.values, slab, pixel_mm, fingerprints(fitted))
            if label_map is not None:
                masks.append(_masks(label_map, slab, recipe))
        sides = "×".join(str(side) for side in volume.array.shape)
        shapes.append(f"{sides} voxels of {'×'.join(f'{side:.2f}' for side in volume.spacing)} mm")
    rules = recipe.rules
    if not codes:
        raise MedvarError(
            f"no slice can be used ({'; '.join(shapes)}): planes need sides of at least {rules.min_side} pixels, "
            f"pixels at most {rules.max_anisotropy} times as long as wide, and {rules.min_foreground:.0%} of tissue"
        )
    stacked = np.concatenate(codes)
    kept = distinct(
        stacked,
        [one.fingerprint for one in facts],
        [one.plane for one in facts],
        bits=rules.duplicate_bits,
        difference=rules.duplicate_difference,
    )
    if len(kept) < len(facts):
        remarks.append(
            f"{len(facts) - len(kept)} of {len(facts)} slices are near-duplicates of others and are left out"
        )
    chosen = stacked if len(kept) == len(facts) else stacked[kept]
    return SeriesSlices(
        chosen,
        tuple(facts[index] for index in kept),
        tuple(remarks),
        masks=np.concatenate(masks)[kept] if masks else None,
    )


def _volumes(series: Series, identity: Identity, recipe: Recipe) -> Iterator[tuple[Volume, str | None]]:
    """The volumes to use, each with its contrast. Channels of a 4-D file are not time points, so all are read."""
    if not identity.channels:
        for volume in series.load(phase_step=recipe.phase_step, diffusion=recipe.diffusion):
            yield volume, identity.contrast
        return
    names = ", ".join(channel or "one that is not used" for channel in identity.channels)
    for volume in series.load(phase_step=1):
        phase = _PHASE.fullmatch(volume.phase or "phase 1 of 1")
        if phase is None or int(phase[2]) != len(identity.channels):
            found = phase[2] if phase else volume.phase
            raise MedvarError(f"{len(identity.channels)} channels are expected ({names}), but it has {found}")
        contrast = identity.channels[int(phase[1]) - 1]
        if contrast is not None:
            yield volume, contrast


def to_matrix(images: FloatArray, spacing: tuple[float, float], recipe: Recipe) -> tuple[FloatArray, float | None]:
    """Resample slices (N, H, W) to the recipe's matrix; returns them with their pixel size in mm, None if unknown.

    ``spacing`` is the pixel size of rows and columns in mm, NaN if unknown. Raises `MedvarError` when it is unknown but
    the recipe sets a pixel size in mm.
    """
    known = bool(np.isfinite(spacing).all())
    if recipe.spacing_mm is None:
        sides = spacing if known else (1.0, 1.0)
        _, height, width = images.shape
        pixel_mm = fitting_pixel((height, width), sides, recipe.size)
        return resample(images, sides, pixel_mm, recipe.size, recipe.padding), pixel_mm if known else None
    if not known:
        raise MedvarError(
            f"its pixel size is unknown, so it cannot be resampled to {recipe.spacing_mm} mm; without spacing_mm it "
            "would be fitted to the matrix"
        )
    fitted = resample(images, spacing, recipe.spacing_mm, recipe.size, recipe.padding)
    return fitted, recipe.spacing_mm


def _masks(label_map: MaskArray, slab: Slab, recipe: Recipe) -> MaskArray:
    """The masks of a slab's slices, on the matrix of `to_matrix`."""
    if slab.plane is None:
        raise MedvarError("the scan has no orientation, so no label map can be matched to it")
    own = view(label_map, slab.plane)[slab.first : slab.first + len(slab.images)]
    _, height, width = own.shape
    pixel_mm = recipe.spacing_mm or fitting_pixel((height, width), slab.spacing, recipe.size)
    return resample_nearest(own, slab.spacing, pixel_mm, recipe.size)


def _facts(
    identity: Identity, values: ValueRange, slab: Slab, pixel_mm: float | None, fingerprints: Sequence[bytes]
) -> Iterator[SliceFacts]:
    where = zip(slab.positions_mm.tolist(), slab.places.tolist(), fingerprints, strict=True)
    for position_mm, place, fingerprint in where:
        yield facts_of(
            identity,
            values,
            pixel_mm,
            slab.plane,
            fingerprint,
            position_mm=round(position_mm, 3) if isfinite(position_mm) else None,
            position=round(place, 5) if isfinite(place) else None,
        )


def facts_of(
    identity: Identity,
    values: ValueRange,
    pixel_mm: float | None,
    plane: str | None,
    fingerprint: bytes,
    *,
    position_mm: float | None = None,
    position: float | None = None,
) -> SliceFacts:
    """The facts of a slice. ``values`` are those of -1 and 1; a slice that is not from a volume has no position."""
    return SliceFacts(
        patient=identity.patient,
        modality=identity.modality,
        region=identity.region,
        plane=plane,
        dataset=identity.dataset,
        contrast=identity.contrast,
        spacing_mm=None if pixel_mm is None else round(pixel_mm, 5),
        low=round(values.low, 4),
        high=round(values.high, 4),
        unit=values.unit,
        position_mm=position_mm,
        series=identity.series,
        source=identity.source,
        licence=identity.licence,
        fingerprint=fingerprint,
        position=position,
    )


def _name(volume: Volume, identity: Identity) -> str:
    """The name of the series, with the number of the volume if there are several."""
    return f"{identity.series} {volume.phase}" if volume.phase else identity.series
