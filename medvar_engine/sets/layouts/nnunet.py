"""The layout of an nnU-Net raw data set (version 2): images with masks, or images alone for pre-training."""

from __future__ import annotations

import json
from collections.abc import Collection

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.sets.layouts.data_card import card
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.write.provenance import STATEMENT

_PAIRS = """nnU-Net raw data: `imagesTr` holds one slice per case, channel 0000, and `labelsTr` its mask. Both are made
by the model; no person has labelled anything."""
_ABOUT = """nnU-Net raw data: `imagesTr` holds one slice per case, channel 0000. **There are no labels**: the folder
`labelsTr` is absent, because the model makes images only. Predict labels with another model, or pre-train without."""


def describe(plan: SetPlan, bundle: Bundle, withheld: Collection[int]) -> dict[str, str]:
    """The data card and ``dataset.json``.

    Raises `MedvarError` for several modalities, which one channel cannot hold.
    """
    modalities = {own.condition.modality for own in plan.mixture.components}
    if len(modalities) > 1:
        raise MedvarError(
            f"An nnU-Net data set has one modality per channel, but the mixture has "
            f"{', '.join(sorted(name or 'none named' for name in modalities))}. Make a separate dataset for each."
        )
    about = {
        "name": "Synthetic",
        "description": f"SYNTHETIC. {STATEMENT} Labels are {'synthetic, too' if bundle.structures else 'absent'}.",
        "channel_names": {"0": modalities.pop() or "image"},
        "labels": {"background": 0} | {one.name: value for value, one in enumerate(bundle.structures, 1)},
        "numTraining": plan.count - len(withheld),
        "file_ending": ".nii.gz",
        "licence": bundle.licence,
        "reference": f"napari-medvar, model {bundle.name}, sha256 {plan.bundle_id}",
    }
    return {
        "README.md": card(plan, bundle, _PAIRS if bundle.structures else _ABOUT, withheld),
        "dataset.json": json.dumps(about, indent=2, ensure_ascii=False) + "\n",
    }


def place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of an image."""
    return f"imagesTr/synthetic_{number:08d}_0000.nii.gz"


def mask_place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of the mask of an image."""
    return f"labelsTr/synthetic_{number:08d}.nii.gz"
