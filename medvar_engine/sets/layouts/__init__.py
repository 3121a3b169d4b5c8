"""Layouts of synthetic datasets on the disk, one per file: the paths of images and the descriptive files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from medvar_engine.bundle.read import Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.sets.layouts import bids, coco, decathlon, imagefolder, nnunet, shards
from medvar_engine.sets.layouts.image_files import remove_image_files, write_image_files
from medvar_engine.sets.set_image import SetImage
from medvar_engine.sets.set_plan import SetFormat, SetPlan

_FORMATS = {
    "shards": ("uint16",),
    "imagefolder": ("png", "png16", "nifti", "dicom"),
    "bids": ("nifti",),
    "nnunet": ("nifti",),
    "decathlon": ("nifti",),
    "coco": ("png", "png16"),
}
_FILES = {"imagefolder": imagefolder, "bids": bids, "nnunet": nnunet, "decathlon": decathlon, "coco": coco}


def set_format(layout: str | None, file_format: str | None) -> SetFormat:
    """The kind of dataset for a layout and a format: shards by default, folders by label for a format alone.

    Raises `MedvarError` for a format that the layout does not support.
    """
    if file_format in (None, "shards"):
        layout = layout or "shards"
        if file_format == "shards" and layout != "shards":
            raise MedvarError(f"The layout {layout} does not support --format. Leave it out.")
        return SetFormat(layout, _FORMATS[layout][0])
    layout = layout or "imagefolder"
    if file_format not in _FORMATS[layout]:
        raise MedvarError(f"The layout {layout} supports {' or '.join(_FORMATS[layout])}, not {file_format}.")
    return SetFormat(layout, file_format)


def describe(plan: SetPlan, bundle: Bundle, withheld: Collection[int] = ()) -> dict[str, str]:
    """File name → text of the files that describe the whole dataset, without the images ``withheld``.

    Raises `MedvarError` for a dataset that the layout does not support.
    """
    layout = _FILES.get(plan.kind.layout, shards)
    return layout.describe(plan, bundle, withheld)


def describe_made(plan: SetPlan, folder: Path, bundle: Bundle, withheld: Collection[int]) -> dict[str, str]:
    """File name → text of the files that describe the images in ``folder`` and are known only when all are made."""
    return coco.list_objects(plan, folder, bundle, withheld) if plan.kind.layout == "coco" else {}


def write_images(
    plan: SetPlan,
    unit: int,
    folder: Path,
    bundle: Bundle,
    images: Sequence[SetImage],
    withheld: Sequence[SetImage],
) -> list[Path]:
    """Write images of a unit, and remove files of those ``withheld``; returns the written files."""
    if plan.kind.layout == "shards":
        return shards.write_shard(unit, folder, images, bundle.image_size)
    layout = _FILES[plan.kind.layout]
    remove_image_files(plan, folder, withheld, layout.place, layout.mask_place)
    return write_image_files(plan, unit, folder, bundle, images, layout.place, layout.mask_place)
