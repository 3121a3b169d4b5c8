"""``medvar data``: manages prepared slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvar_engine.cli.console import needs, print_message, print_result, progress

if TYPE_CHECKING:
    from medvar_engine.data.shards import Manifest

app = typer.Typer(
    name="data",
    help="Manage prepared slices: list, report, verify, append, merge, split, export.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
export = typer.Typer(
    name="export",
    help="Write prepared slices in the format of another library.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(export)

Folder = Annotated[Path, typer.Argument(help="Folder of prepared slices.")]
Out = Annotated[Path, typer.Argument(help="Folder to write; it must be new or empty.")]
Key = Annotated[
    Path | None,
    typer.Option(
        help="File with the key of the pseudonyms, to compare them with public names; by default from your settings."
    ),
]
AnyRecipe = Annotated[bool, typer.Option("--any-recipe", help="Allow slices that were prepared with other settings.")]


@app.command("list")
def list_slices(folder: Folder) -> None:
    """Print the number of slices and patients of each label."""
    with _extra("train"):
        from medvar_engine.data.shards import Manifest
    for line in _table(Manifest.read(folder)):
        print_result(line)


@app.command()
def report(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML page to write.")],
    scans: Annotated[
        Path | None, typer.Option(help="Scans that the slices were made from, for histograms of all values.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Data set recipe of the scans, by name or as a .yaml file.")
    ] = None,
) -> None:
    """Write a report page: counts, images, histograms, near-duplicates, and leaks between training and test."""
    with _extra("train"):
        from medvar_engine.data.recipe.recipe_file import load_recipe
        from medvar_engine.data.report import write_report
    for concern in write_report(folder, out, scans=scans, recipe=load_recipe(recipe) if recipe else None):
        print_message(f"{'warning' if concern.grave else 'note'}: {concern}")
    print_result(out)


@app.command()
def verify(folder: Folder) -> None:
    """Check hashes, the consistency of table, images and split, and leaks between training and test."""
    with _extra("train"):
        from medvar_engine.data.shards import verify as run
    with _bar() as advance:
        manifest = run(folder, advance)
    print_result(f"{folder}: {manifest.slices} slices are unchanged.")


@app.command()
def append(
    folder: Folder,
    more: Annotated[Path, typer.Argument(help="Folder of prepared slices to add; it is not changed.")],
    any_recipe: AnyRecipe = False,
    key: Key = None,
) -> None:
    """Add slices to FOLDER. The split of its patients stays; new patients are split by its rule."""
    with _extra("train"):
        from medvar_engine.data.identity.pseudonyms import known_pseudonyms
        from medvar_engine.data.shards import append as run
    _print_manifest(run(folder, more, any_recipe=any_recipe, pseudonyms=known_pseudonyms(key)))
    print_result(folder)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of prepared slices.")],
    out: Out,
    any_recipe: AnyRecipe = False,
    key: Key = None,
) -> None:
    """Merge several folders into a new one.

    Patients held out in one of them stay held out, unless a split that came with the data says otherwise.
    """
    with _extra("train"):
        from medvar_engine.data.identity.pseudonyms import known_pseudonyms
        from medvar_engine.data.shards import merge as run
    _print_manifest(run(folders, out, any_recipe=any_recipe, pseudonyms=known_pseudonyms(key)))
    print_result(out)


@app.command()
def split(
    folder: Folder,
    test_fraction: Annotated[
        float, typer.Option(help="Share of patients to hold out for testing.", min=0, max=0.9)
    ] = 0.1,
    holdout: Annotated[
        list[str] | None, typer.Option(help="Patient for testing, and no others; repeat for more.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split.", min=0)] = 0,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Draw the share within each modality, region or dataset; by default modality and region."),
    ] = None,
) -> None:
    """Draw a new split of the patients. Models trained with the old split must not be tested with the new one."""
    with _extra("train"):
        from medvar_engine.data.shards import resplit
        from medvar_engine.data.split import SplitRule
    strata = tuple(by) if by else SplitRule().strata
    _print_manifest(resplit(folder, SplitRule(test_fraction, seed, tuple(holdout or ()), strata)))
    print_result(folder)


@export.command()
def webdataset(folder: Folder, out: Out) -> None:
    """Write tar files for WebDataset: one NumPy array and one JSON object per slice."""
    with _extra("train"):
        from medvar_engine.data.adapters.webdataset import export_webdataset
    with _bar() as advance:
        export_webdataset(folder, out, progress=advance)
    print_result(out)


@export.command()
def litdata(folder: Folder, out: Out) -> None:
    """Write chunks for LitData's StreamingDataset."""
    with _extra("train"):
        from medvar_engine.data.adapters.litdata import export_litdata
    with _bar() as advance, _extra("litdata"):
        export_litdata(folder, out, progress=advance)
    print_result(out)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Turn a failed import into an error that says what to install."""
    try:
        yield
    except ImportError as error:
        raise needs(name, error) from error


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    with progress() as bar:
        task = bar.add_task("reading", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield advance


def _print_manifest(manifest: Manifest) -> None:
    for remark in manifest.remarks:
        print_message(f"note: {remark}")
    for line in _table(manifest):
        print_message(line)


def _table(manifest: Manifest) -> Iterator[str]:
    """Counts of slices and patients as aligned columns."""
    columns = ("modality", "region", "plane", "split", "slices", "patients")
    rows = [columns, *(tuple(str(row.get(name) or "-") for name in columns) for row in manifest.counts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = [text.ljust(width) for text, width in zip(row[:4], widths[:4], strict=True)]
        numbers = [text.rjust(width) for text, width in zip(row[4:], widths[4:], strict=True)]
        yield "  ".join(texts + numbers)
    yield f"{manifest.slices} slices of {manifest.size}×{manifest.size} pixels, {len(manifest.split)} patients"
