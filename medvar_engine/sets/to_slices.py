"""`to_slices`: turns a synthetic dataset into prepared slices, to train on synthetic images explicitly."""

from __future__ import annotations

from pathlib import Path

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.data.duplicates.fingerprint import fingerprint
from medvar_engine.data.shards import Manifest, ShardWriter
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.data.split import SplitRule
from medvar_engine.errors import MedvarError
from medvar_engine.sets.image_set import ImageSet
from medvar_engine.value_range import decode

SOURCE = "SYNTHETIC"


def to_slices(path: Path, out: Path, bundle: Bundle) -> Manifest:
    """Write the dataset of shards in ``path`` as a new folder of prepared slices, for training only.

    ``bundle`` is the bundle that made the dataset and gives the meaning of pixels. Every image counts as a separate
    patient, none is held out, and source and remarks state that all are synthetic. Raises `MedvarError` for another
    bundle, for a condition without a modality, and when ``out`` is not new or empty.
    """
    images = ImageSet.open(path)
    plan = images.manifest.plan
    if plan.bundle_id != bundle.bundle_id:
        raise MedvarError(
            f"{path} was made by another model (sha256 {plan.bundle_id[:12]}…). Open the bundle that made it."
        )
    if unnamed := [own.condition for own in plan.mixture.components if own.condition.modality is None]:
        raise MedvarError(f"Prepared slices need a modality, but the condition {str(unnamed[0])!r} of {path} has none.")
    source = f"{SOURCE}: model {bundle.name}, sha256 {plan.bundle_id[:12]}"
    split: dict[str, str] = {}
    with ShardWriter(out, bundle.image_size) as writer:
        for unit in range(plan.units):
            codes, numbers = images.codes(unit), images.numbers(unit)
            if not numbers:
                continue
            patients = [f"synthetic-{number:08d}" for number in numbers]
            conditions = [request.condition for request in plan.mixture.requests(numbers)]
            prints = [fingerprint(decode(code)) for code in codes]
            writer.add(
                codes,
                [
                    _facts(bundle, condition, patient, source, own)
                    for condition, patient, own in zip(conditions, patients, prints, strict=True)
                ],
            )
            split |= dict.fromkeys(patients, "train")
        return writer.finish(
            split,
            recipe={"size": bundle.image_size, "synthetic": True, **SplitRule(test_fraction=0.0).to_dict()},
            remarks=[f"every slice is synthetic, made by the model {bundle.name} (sha256 {plan.bundle_id})"],
        )


def _facts(bundle: Bundle, condition: Condition, patient: str, source: str, own: bytes) -> SliceFacts:
    shown = bundle.display(condition)
    return SliceFacts(
        patient=patient,
        modality=condition.modality or "",
        region=condition.region,
        plane=condition.plane,
        dataset=condition.dataset,
        contrast=condition.contrast,
        spacing_mm=shown.spacing_mm,
        low=shown.low,
        high=shown.high,
        unit=shown.unit,
        position_mm=None,
        series=patient,
        source=source,
        licence=bundle.licence,
        fingerprint=own,
        position=condition.position,
    )
