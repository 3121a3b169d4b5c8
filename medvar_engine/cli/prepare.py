"""``medvar prepare``: scans → slices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvar_engine.cli.console import needs, progress, tell


def prepare(
    source: Annotated[Path, typer.Argument(help="Folder of DICOM, NIfTI, NRRD or MHA files, or one file.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; it must be new or empty.")],
    size: Annotated[int, typer.Option(help="Pixels a side.", min=32, max=1024)] = 128,
    plane: Annotated[list[str] | None, typer.Option(help="axial, coronal or sagittal; all three by default.")] = None,
    modality: Annotated[str | None, typer.Option(help="CT or MR, where the files do not say.")] = None,
    region: Annotated[str | None, typer.Option(help="e.g. brain, where the files do not say.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Name of the data set, a label to condition on.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the scans, where index.csv does not say.")] = None,
    window: Annotated[str | None, typer.Option(help="CT window by name, in place of each region's own.")] = None,
    holdout: Annotated[list[str] | None, typer.Option(help="Patient kept for testing; repeat for more.")] = None,
    test_fraction: Annotated[float, typer.Option(help="Share of patients kept for testing.", min=0, max=0.9)] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace slices prepared earlier.")] = False,
) -> None:
    """Turn scans into harmonised slices in memory-mapped shards, split by patient."""
    try:
        from medvar_engine.data.prepare import prepare as run
    except ImportError as error:
        raise needs("train", error) from error
    planes = tuple(plane) if plane else ("axial", "coronal", "sagittal")
    with progress() as bar:
        task = bar.add_task("reading", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        manifest = run(
            source,
            out,
            size=size,
            planes=planes,
            modality=modality,
            region=region,
            dataset=dataset,
            licence=licence,
            window=window,
            holdout=tuple(holdout or ()),
            test_fraction=test_fraction,
            seed=seed,
            overwrite=overwrite,
            progress=advance,
        )
    for refusal in manifest.refused:
        tell(f"refused {refusal['path']}: {refusal['reason']}")
    for remark in manifest.remarks:
        tell(f"note: {remark}")
    for cell in manifest.counts:
        kind = " ".join(str(cell[name]) for name in ("modality", "region", "plane") if cell[name])
        tell(f"{cell['split']:>5}  {kind}: {cell['slices']} slices of {cell['patients']} patients")
    typer.echo(out)
