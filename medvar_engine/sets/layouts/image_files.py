"""Writes a synthetic dataset as files, each with its provenance like single images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.sets.set_image import SetImage
from medvar_engine.sets.set_plan import SetPlan
from medvar_engine.storage import make_folder
from medvar_engine.write.burn_in import marked
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import remove_written, write_image
from medvar_engine.write.output_image import OutputImage

Place = Callable[[SetPlan, int, Condition], str]
"""A function that returns the path of image number i of a condition, relative to the folder of the dataset."""


def write_image_files(
    plan: SetPlan,
    unit: int,
    folder: Path,
    bundle: Bundle,
    images: Sequence[SetImage],
    place: Place,
    mask_place: Place,
) -> list[Path]:
    """Write images of a unit and their masks, in one DICOM study; returns the files. Existing files are replaced."""
    study = Study(f"{plan.identity} {unit}", datetime.fromisoformat(plan.created))
    written: list[Path] = []
    for made in images:
        path, mask = _paths(plan, folder, made, place, mask_place)
        for parent in {path.parent, mask.parent} if made.mask is not None else {path.parent}:
            make_folder(parent)
        image = replace(OutputImage.of(bundle, made.trace, made.image, made.mask), copy_risk=made.copy_risk)
        image = marked(image, plan.marks)
        written += write_image(path, plan.kind.format, image, study, made.number + 1, mask=mask)
    return written


def remove_image_files(
    plan: SetPlan, folder: Path, images: Sequence[SetImage], place: Place, mask_place: Place
) -> None:
    """Remove the files of withheld images that an earlier attempt wrote, on a device that rounds differently."""
    for withheld in images:
        path, mask = _paths(plan, folder, withheld, place, mask_place)
        remove_written(path, plan.kind.format, mask=mask)


def _paths(plan: SetPlan, folder: Path, image: SetImage, place: Place, mask_place: Place) -> tuple[Path, Path]:
    """The files of an image and of its mask."""
    condition = image.trace.request.condition
    return folder / place(plan, image.number, condition), folder / mask_place(plan, image.number, condition)
