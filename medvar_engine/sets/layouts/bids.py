"""The layout of a BIDS derivative (BIDS 1.10): every image is a separate subject, because no two show the same body.

BIDS has no suffix for an MR image of unknown contrast, and CT only as a proposal (BEP024): the suffixes here are
``mri`` and ``ct``, and ``.bidsignore`` makes a validator ignore these files.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import medvar_engine
from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import FACTORS, Condition
from medvar_engine.sets.layouts.data_card import card
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.write.provenance import STATEMENT

_ABOUT = """A BIDS derivative: every image is a subject of its own, a NIfTI of one slice and a sidecar with its trace.
`participants.tsv` lists conditions and seeds. Subjects are not patients. BIDS has no suffix for MR of unknown contrast
and none yet for CT; the files end in `_mri` and `_ct`, which `.bidsignore` makes a validator pass by."""
_SUFFIXES = {"CT": ("ct", "ct"), "MR": ("anat", "mri")}


def describe(plan: SetPlan, bundle: Bundle, withheld: Collection[int]) -> dict[str, str]:
    """The data card, the description, the participants, and ``.bidsignore``."""
    about = {
        "Name": f"SYNTHETIC images by {bundle.name}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "License": bundle.licence,
        "HowToAcknowledge": STATEMENT,
        "GeneratedBy": [
            {
                "Name": "napari-medvar",
                "Version": medvar_engine.__version__,
                "Description": f"{STATEMENT} Model {bundle.name}, sha256 {plan.bundle_id}.",
            }
        ],
        "SourceDatasets": [],
    }
    rows = [
        "\t".join((_subject(number), *_cells(condition), str(seed)))
        for number, condition, seed in plan.conditions(withheld)
    ]
    names = [
        ("index", "name", "color"),
        *((str(i), one.name, one.colour) for i, one in enumerate(bundle.structures, 1)),
    ]
    masks = {"desc-synthetic_dseg.tsv": "".join("\t".join(row) + "\n" for row in names)} if bundle.structures else {}
    return masks | {
        "README.md": card(plan, bundle, _ABOUT, withheld),
        "dataset_description.json": json.dumps(about, indent=2, ensure_ascii=False) + "\n",
        "participants.tsv": "\n".join(("\t".join(("participant_id", *FACTORS, "seed")), *rows, "")),
        ".bidsignore": "units/\nset.json\n*_mri.*\n*_ct.*\n*_image.*\n",
    }


def place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of an image."""
    subject = _subject(number)
    folder, suffix = _SUFFIXES.get(condition.modality or "", ("anat", "image"))
    return f"{subject}/{folder}/{subject}_desc-synthetic_{suffix}.nii.gz"


def mask_place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of the mask of an image: a discrete segmentation beside it (BIDS 1.10, imaging derivatives)."""
    subject = _subject(number)
    folder, _ = _SUFFIXES.get(condition.modality or "", ("anat", "image"))
    return f"{subject}/{folder}/{subject}_desc-synthetic_dseg.nii.gz"


def _cells(condition: Condition) -> list[str]:
    """One table cell for each factor."""
    values = condition.to_dict()
    return [str(values.get(name, "n/a")) for name in FACTORS]


def _subject(number: int) -> str:
    return f"sub-{number:08d}"
