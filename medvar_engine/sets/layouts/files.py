"""A set as files, each with its provenance, as single images have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from medvar_engine.arrays import FloatArray
from medvar_engine.bundle import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.sets.plan import Plan
from medvar_engine.trace import Trace
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import write_picture
from medvar_engine.write.picture import Picture

Place = Callable[[Plan, int, Condition], str]
"""Where image number i of a condition goes, below the folder of the set."""


def write_pictures(
    plan: Plan,
    unit: int,
    folder: Path,
    bundle: Bundle,
    images: Sequence[FloatArray],
    traces: Sequence[Trace],
    place: Place,
) -> list[Path]:
    """Write the images of a unit, one study of DICOM; gives the files. Those that were there are replaced."""
    study = Study(f"{plan.identity} {unit}", datetime.fromisoformat(plan.created))
    written: list[Path] = []
    for number, image, trace in zip(plan.numbers(unit), images, traces, strict=True):
        path = folder / place(plan, number, trace.request.condition)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MedvarError(f"Cannot make the folder {path.parent}: {error.strerror or error}.") from error
        written += write_picture(path, plan.kind.format, Picture.of(bundle, trace, image), study, number + 1)
    return written
