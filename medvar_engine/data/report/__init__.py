"""A report on prepared slices: one HTML page that needs neither network nor scripts."""

from __future__ import annotations

from pathlib import Path

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.near_duplicates import find_duplicates
from medvar_engine.data.recipe.dataset_recipe import DatasetRecipe
from medvar_engine.data.report.concerns import Concern, concerns
from medvar_engine.data.report.histograms import scan_histograms
from medvar_engine.data.report.page import page
from medvar_engine.errors import MedvarError
from medvar_engine.storage import replace_file, writing

__all__ = ["Concern", "write_report"]


def write_report(
    slices: Path, out: Path, *, scans: Path | None = None, recipe: DatasetRecipe | None = None
) -> list[Concern]:
    """Write an HTML page about the prepared slices in ``slices`` to ``out``; returns concerns before training.

    With ``scans``, and their ``recipe`` if they were prepared by one, histograms before harmonising show all values of
    a few scans; otherwise they show the values that the slices keep. The same slices give the same page.

    Raises `MedvarError` when ``slices`` or ``scans`` cannot be read, or ``out`` cannot be written; ``out``
    is then unchanged.
    """
    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise MedvarError(f"A report is an HTML page, so {out.name} should end in .html.")
    if not out.absolute().parent.is_dir():
        raise MedvarError(f"There is no folder {out.absolute().parent} to write {out.name} to.")
    dataset = SliceDataset(Path(slices))
    before = None if scans is None else scan_histograms(Path(scans), recipe)
    duplicates = find_duplicates(dataset)
    raised = concerns(dataset, duplicates)
    content = page(dataset, duplicates, raised, before).encode("utf-8", errors="replace")
    with writing(out, "it was not changed"):
        replace_file(out, content)
    return raised
