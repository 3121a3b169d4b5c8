"""The layout of COCO instance annotations, for 2-D segmentation and detection: PNG images, and masks in one JSON.

Every structure in an image is one object, with its bounding box and its pixels in COCO's run lengths: column by column,
the first run is of background. The masks are also written as PNG, for programs without a reader of run lengths.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import medvar_engine
from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.sets.layouts.data_card import card
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.write.provenance import STATEMENT
from medvar_engine.write.written_mask import read_written_mask

ANNOTATIONS = "annotations.json"

_ABOUT = """Laid out as COCO: `annotations.json` lists the images in `images`, and every structure in them as one
object, with bounding box and run lengths, e.g. for `pycocotools`. `masks` holds the same masks as PNG, with the
categories as values. No person has labelled anything."""


def describe(plan: SetPlan, bundle: Bundle, withheld: Collection[int]) -> dict[str, str]:
    """The data card. Raises `MedvarError` for a model that makes no masks."""
    if not bundle.structures:
        raise MedvarError(f"The layout coco lists objects in images, but {bundle.name} makes images without masks.")
    return {"README.md": card(plan, bundle, _ABOUT, withheld)}


def list_objects(plan: SetPlan, folder: Path, bundle: Bundle, withheld: Collection[int]) -> dict[str, str]:
    """``annotations.json``, from the masks in the folder. Raises `MedvarError` when one cannot be read."""
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number, condition, seed in plan.conditions(withheld):
        mask, _ = read_written_mask(folder / mask_place(plan, number, condition))
        height, width = mask.shape
        about = {"file_name": f"{number:08d}.png", "height": height, "width": width, "license": 1}
        images.append({"id": number, **about, "condition": condition.to_dict(), "seed": seed})
        for value in np.unique(mask[mask > 0]).tolist():
            objects.append({"id": len(objects) + 1, "image_id": number, "category_id": value, **_object(mask == value)})
    found = {
        "info": {
            "description": f"SYNTHETIC. {STATEMENT} Masks are synthetic, too.",
            "contributor": f"napari-medvar {medvar_engine.__version__}, model {bundle.name}, sha256 {plan.bundle_id}",
            "date_created": plan.created,
            "version": "1.0",
        },
        "licenses": [{"id": 1, "name": bundle.licence, "url": ""}],
        "images": images,
        "annotations": objects,
        "categories": [
            {"id": value, "name": one.name, "supercategory": "structure"}
            for value, one in enumerate(bundle.structures, 1)
        ],
    }
    return {ANNOTATIONS: json.dumps(found, ensure_ascii=False) + "\n"}


def place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of an image."""
    return f"images/{number:08d}.png"


def mask_place(plan: SetPlan, number: int, condition: Condition) -> str:
    """The path of the mask of an image."""
    return f"masks/{number:08d}.png"


def _object(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Pixels, box and area of one object ``(H, W)``. A box is x, y, width and height in pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
        "bbox": [float(value) for value in box],
        "area": int(mask.sum()),
        "iscrowd": 0,
    }


def run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of equal pixels, column by column; the first is of background, and may be 0."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(pixels)]])).tolist()
    return [0, *runs] if pixels[0] else runs
