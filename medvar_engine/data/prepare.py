"""`prepare`: a folder of scans to a folder of shards, in one pass over the scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvar_engine.data.harmonise import (
    MR_PERCENTILES,
    REGION_WINDOW,
    ValueRange,
    clip_mr,
    ct_window,
    fit_to_matrix,
    mr_foreground,
    window_ct,
)
from medvar_engine.data.index import IndexRow, find_row, normal_modality, read_index, slug
from medvar_engine.data.read import LOOKED_FOR, Refusal, Series, find_series
from medvar_engine.data.read_files import stem
from medvar_engine.data.shards import Manifest, ShardWriter
from medvar_engine.data.slices import PLANES, SliceRules, cut
from medvar_engine.data.split import split_patients
from medvar_engine.data.volume import FloatArray, Volume
from medvar_engine.errors import MedvarError

CT_FOREGROUND_HU = -300.0

Progress = Callable[[str, int, int], None]
"""Called with what is being read, how many series are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of one series, from the index, the arguments or the headers, in this order."""

    patient: str
    modality: str
    region: str
    dataset: str | None
    contrast: str | None
    source: str
    licence: str
    patient_guessed: bool = False


def prepare(
    source: Path,
    out: Path,
    *,
    size: int = 128,
    planes: Sequence[str] = PLANES,
    modality: str | None = None,
    region: str | None = None,
    dataset: str | None = None,
    licence: str | None = None,
    window: str | None = None,
    holdout: Sequence[str] = (),
    test_fraction: float = 0.1,
    seed: int = 0,
    phase_step: int = 8,
    overwrite: bool = False,
    rules: SliceRules | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Read the scans in ``source`` (a folder or a file) and write shards of ``size``-pixel slices to ``out``.

    What a scan is comes from ``index.csv`` in ``source``, else from ``modality``, ``region`` and ``dataset``, else from
    the DICOM header. ``window`` names the CT window for all regions, instead of each region's own. ``holdout`` are the
    patients of the test split; without it a ``test_fraction`` of each modality × region is drawn by ``seed``. Of a scan
    over time every ``phase_step``-th phase is taken. Patients are written as the index or the headers name them.

    What cannot be used is refused, with the reason in `Manifest.refused`, and the rest goes on. Raises `MedvarError`
    when nothing is left, and then ``out`` is as it was.
    """
    source, out = Path(source), Path(out)
    if size < 8:
        raise MedvarError(f"size is the side of the slices in pixels, at least 8, but got {size}.")
    if phase_step < 1:
        raise MedvarError(f"phase_step is at least 1, but got {phase_step}.")
    if source.resolve().is_relative_to(out.resolve()):
        raise MedvarError(f"The scans in {source} lie inside {out}, which is to be written; choose another folder.")
    rules = SliceRules(tuple(planes)) if rules is None else rules
    if window is not None:
        ct_window(window)
    index = read_index(source) if source.is_dir() else []
    series, refusals = find_series(source)
    if not series and not refusals:
        raise MedvarError(f"No images found below {source}; looked for {LOOKED_FOR}.")
    arguments = {"modality": modality, "region": region, "dataset": dataset, "licence": licence}
    known: list[tuple[Series, Identity]] = []
    for one in series:
        try:
            known.append((one, _identify(one, index, source, **arguments)))
        except MedvarError as error:
            refusals.append(Refusal(str(one.path), str(error)))
    found = {one.path for one in series}
    for row in index:
        if not any(path.is_relative_to(source / row.path) for path in found):
            refusals.append(Refusal(str(source / row.path), "index.csv names it, but no image was found there"))
    patients = {identity.patient for _, identity in known}
    if unknown := sorted(set(holdout) - patients):
        names = ", ".join(sorted(patients)[:20]) + (", …" if len(patients) > 20 else "")
        raise MedvarError(f"Held-out patients {unknown} are not in {source}; its patients are {names}.")

    with ShardWriter(out, size, overwrite=overwrite) as writer:
        for done, (one, identity) in enumerate(known):
            if progress is not None:
                progress(_relative(one.path, source), done, len(known))
            try:
                _add_series(writer, one, identity, source, window, rules, phase_step)
            except MedvarError as error:
                refusals.append(Refusal(str(one.path), str(error)))
        if progress is not None:
            progress("done", len(known), len(known))
        refused = [
            {"path": _relative(Path(one.path), source), "reason": one.reason.replace(f"{source}/", "")}
            for one in refusals
        ]
        if not writer.rows:
            reasons = "\n".join(f"  {one['path']}: {one['reason']}" for one in refused[:20])
            raise MedvarError(f"No slices could be made from {source}; what was found was refused:\n{reasons}")
        cells: dict[str, set[tuple[str, str]]] = {}
        for made in writer.rows:
            cells.setdefault(made.patient, set()).add((made.modality, made.region or ""))
        split, remarks = split_patients(
            cells, test_fraction=test_fraction, seed=seed, holdout=[one for one in holdout if one in cells]
        )
        if guessed := sorted({identity.patient for one, identity in known if identity.patient_guessed}):
            remarks.append(
                f"patients {', '.join(guessed[:5])}{', …' if len(guessed) > 5 else ''} are guessed from file names or "
                "studies: if one person has several, name the patients in index.csv, or train and test may share them"
            )
        remarks += [f"held-out patient {one} gave no slices" for one in holdout if one not in cells]
        recipe = _recipe(size, rules, window, phase_step, seed, test_fraction, holdout)
        return writer.finish(split, recipe=recipe, refused=refused, remarks=remarks)


def _identify(one: Series, index: list[IndexRow], source: Path, **arguments: str | None) -> Identity:
    rows = {find_row(index, source, path) for path in one.paths} if index else {None}
    if len(rows) > 1:
        raise MedvarError("index.csv has different rows for the files of this one series")
    row = rows.pop()
    if row is not None:
        if one.modality is not None and one.modality != row.modality:
            raise MedvarError(f"index.csv says {row.modality}, but the DICOM header says {one.modality}")
        return Identity(
            row.patient,
            row.modality,
            row.region,
            slug(arguments["dataset"]) if arguments["dataset"] else row.dataset,
            row.contrast or None,
            row.source or source.name,
            row.licence or arguments["licence"] or "",
        )
    modality = normal_modality(arguments["modality"]) if arguments["modality"] else one.modality
    region = slug(arguments["region"]) if arguments["region"] else one.region
    if one.modality is not None and modality != one.modality:
        raise MedvarError(f"the DICOM header says {one.modality}, but {modality} was asked for")
    missing = [name for name, value in (("modality", modality), ("region", region)) if not value]
    if modality is None or region is None or missing:
        raise MedvarError(
            f"its {' and '.join(missing)} is not known: {'the DICOM header' if one.is_dicom else 'the file format'} "
            "does not say it; name it as an argument, or in an index.csv (path, patient, modality, region, …)"
        )
    return Identity(
        one.patient or _patient_of(one.path),
        modality,
        region,
        slug(arguments["dataset"]) if arguments["dataset"] else None,
        None,
        arguments["dataset"] or source.name,
        arguments["licence"] or "",
        one.patient_guessed,
    )


def _patient_of(path: Path) -> str:
    """The BIDS subject in the path, or else the file name without its suffix."""
    return next((part for part in path.parts[:-1] if part.startswith("sub-")), stem(path).split("_ses-")[0])


def _add_series(
    writer: ShardWriter,
    one: Series,
    identity: Identity,
    source: Path,
    window: str | None,
    rules: SliceRules,
    phase_step: int,
) -> None:
    kept, reasons = 0, []
    for volume in one.load(phase_step=phase_step):
        image, values, foreground = _harmonise(volume, identity, window)
        before = len(writer.rows)
        for part in cut(volume, image, foreground, rules):
            spacing = part.spacing if np.isfinite(part.spacing).all() else (1.0, 1.0)
            fitted, pixel_mm = fit_to_matrix(part.image, spacing, writer.size)
            writer.add(
                fitted,
                patient=identity.patient,
                modality=identity.modality,
                region=identity.region,
                plane=part.plane,
                dataset=identity.dataset,
                contrast=identity.contrast,
                spacing_mm=round(pixel_mm, 5) if np.isfinite(part.spacing).all() else None,
                low=round(values.low, 4),
                high=round(values.high, 4),
                unit=values.unit,
                position_mm=round(part.position_mm, 3) if np.isfinite(part.position_mm) else None,
                series=_series_name(one, volume, source),
                source=identity.source,
                licence=identity.licence,
            )
        kept += len(writer.rows) - before
        shape = "×".join(str(side) for side in volume.array.shape)
        spacings = "×".join(f"{side:.2f}" for side in volume.spacing)
        reasons.append(f"{shape} voxels of {spacings} mm")
    if not kept:
        raise MedvarError(
            f"no slice is worth keeping ({'; '.join(reasons)}): planes need sides of {rules.min_side} pixels, pixels "
            f"at most {rules.max_anisotropy} times as long as wide, and {rules.min_foreground:.0%} of tissue"
        )


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
    name = volume.series if one.is_dicom else _relative(one.path, source)
    return f"{name} {volume.phase}" if volume.phase else name


def _relative(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix() if source.is_dir() and path.is_relative_to(source) else path.name


def _recipe(
    size: int,
    rules: SliceRules,
    window: str | None,
    phase_step: int,
    seed: int,
    test_fraction: float,
    holdout: Sequence[str],
) -> dict[str, Any]:
    return {
        "size": size,
        "planes": list(rules.planes),
        "max_anisotropy": rules.max_anisotropy,
        "min_side": rules.min_side,
        "min_foreground": rules.min_foreground,
        "min_relative": rules.min_relative,
        "ct_windows_hu": {
            name: [ct_window(window or preset).low, ct_window(window or preset).high]
            for name, preset in REGION_WINDOW.items()
        },
        "ct_foreground_hu": CT_FOREGROUND_HU,
        "mr_percentiles": list(MR_PERCENTILES),
        "phase_step": phase_step,
        "seed": seed,
        "test_fraction": test_fraction,
        "holdout": list(holdout),
    }
