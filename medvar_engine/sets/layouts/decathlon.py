"""The layout of the Medical Segmentation Decathlon: ``dataset.json`` lists pairs, as MONAI's loaders expect."""

from __future__ import annotations

import json
from collections.abc import Collection

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.sets.layouts.data_card import card
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.write.provenance import STATEMENT

_ABOUT = """Laid out as the Medical Segmentation Decathlon: `imagesTr` holds one slice per case, `labelsTr` its mask,
and `dataset.json` lists both, e.g. for `monai.data.load_decathlon_datalist`. No person has labelled anything."""


def describe(plan: SetPlan, bundle: Bundle, withheld: Collection[int]) -> dict[str, str]:
    """Data card and ``dataset.json``. Raises `MedvarError` for a model that makes no masks."""
    if not bundle.structures:
        raise MedvarError(
            f"The layout decathlon needs images with masks, but {bundle.name} makes images without masks."
        )
    modalities = {own.condition.modality or "image" for own in plan.mixture.components}
    numbers = [number for number, _, _ in plan.conditions(withheld)]
    about = {
        "name": "Synthetic",
        "description": f"SYNTHETIC. {STATEMENT} Labels are synthetic, too.",
        "reference": f"napari-medvar, model {bundle.name}, sha256 {plan.bundle_id}",
        "licence": bundle.licence,
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": " or ".join(sorted(modalities))},
        "labels": {"0": "background"} | {str(value): one.name for value, one in enumerate(bundle.structures, 1)},
        "numTraining": len(numbers),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{_name(one)}", "label": f"./labelsTr/{_name(one)}"} for one in numbers],
        "test": [],
    }
    return {
        "README.md": card(plan, bundle, _ABOUT, withheld),
        "dataset.json": json.dumps(about, indent=1, ensure_ascii=False) + "\n",
    }


def place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of an image."""
    return f"imagesTr/{_name(number)}"


def mask_place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of the mask of an image."""
    return f"labelsTr/{_name(number)}"


def _name(number: int) -> str:
    return f"synthetic_{number:08d}.nii.gz"
