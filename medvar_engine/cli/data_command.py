"""``medvar data``: what can be done with prepared slices besides training on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvar_engine.cli.console import needs, progress, say, tell

if TYPE_CHECKING:
    from medvar_engine.data.shards import Manifest

app = typer.Typer(
    name="data",
    help="Look after prepared slices: list, report, verify, append, merge, split, export.",
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
    typer.Option(help="Key of the pseudonyms, to compare them with public names; yours, in your settings."),
]
AnyRecipe = Annotated[bool, typer.Option("--any-recipe", help="Allow slices that were prepared otherwise.")]


@app.command("list")
def list_slices(folder: Folder) -> None:
    """Print how many slices of how many patients there are of what."""
    with _extra("train"):
        from medvar_engine.data.shards import Manifest
    for line in _table(Manifest.read(folder)):
        say(line)


@app.command()
def report(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML page to write.")],
    scans: Annotated[Path | None, typer.Option(help="The scans it was made of, for histograms of all values.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Data set recipe of the scans, by name or as a .yaml file.")
    ] = None,
) -> None:
    """Write a page to look at: counts, pictures, histograms, near-duplicates, and leaks between training and test."""
    with _extra("train"):
        from medvar_engine.data.recipe.recipe_file import load_recipe
        from medvar_engine.data.report import write_report
    for concern in write_report(folder, out, scans=scans, recipe=load_recipe(recipe) if recipe else None):
        tell(f"{'warning' if concern.grave else 'note'}: {concern}")
    say(out)


@app.command()
def verify(folder: Folder) -> None:
    """Check every file against its hash, and table, images and split against each other, and training against test."""
    with _extra("train"):
        from medvar_engine.data.shards import verify as run
    with _bar() as advance:
        manifest = run(folder, advance)
    say(f"{folder}: {manifest.slices} slices are as they were written.")


@app.command()
def append(
    folder: Folder,
    more: Annotated[Path, typer.Argument(help="Folder of prepared slices to add; it stays as it is.")],
    any_recipe: AnyRecipe = False,
    key: Key = None,
) -> None:
    """Add slices to FOLDER. Its patients stay in train or test; new ones are split by its rule."""
    with _extra("train"):
        from medvar_engine.data.identity.pseudonyms import known_pseudonyms
        from medvar_engine.data.shards import append as run
    _tell(run(folder, more, any_recipe=any_recipe, pseudonyms=known_pseudonyms(key)))
    say(folder)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of prepared slices.")],
    out: Out,
    any_recipe: AnyRecipe = False,
    key: Key = None,
) -> None:
    """Put several folders together as a new one.

    Who is held out in one of them is held out, unless a split that was given with the data says otherwise.
    """
    with _extra("train"):
        from medvar_engine.data.identity.pseudonyms import known_pseudonyms
        from medvar_engine.data.shards import merge as run
    _tell(run(folders, out, any_recipe=any_recipe, pseudonyms=known_pseudonyms(key)))
    say(out)


@app.command()
def split(
    folder: Folder,
    test_fraction: Annotated[float, typer.Option(help="Share of patients kept for testing.", min=0, max=0.9)] = 0.1,
    holdout: Annotated[list[str] | None, typer.Option(help="Patient to test, and no others; repeat for more.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0)] = 0,
    by: Annotated[
        list[str] | None,
        typer.Option(help="modality, region or dataset: what each share is drawn of; modality and region by default."),
    ] = None,
) -> None:
    """Draw anew which patients are tested. Models that were trained before must not be tested on them."""
    with _extra("train"):
        from medvar_engine.data.shards import resplit
        from medvar_engine.data.split import SplitRule
    strata = tuple(by) if by else SplitRule().strata
    _tell(resplit(folder, SplitRule(test_fraction, seed, tuple(holdout or ()), strata)))
    say(folder)


@export.command()
def webdataset(folder: Folder, out: Out) -> None:
    """Write tar files for WebDataset: a NumPy array and a JSON object a slice."""
    with _extra("train"):
        from medvar_engine.data.adapters.webdataset import export_webdataset
    with _bar() as advance:
        export_webdataset(folder, out, progress=advance)
    say(out)


@export.command()
def litdata(folder: Folder, out: Out) -> None:
    """Write chunks for LitData's StreamingDataset."""
    with _extra("train"):
        from medvar_engine.data.adapters.litdata import export_litdata
    with _bar() as advance, _extra("litdata"):
        export_litdata(folder, out, progress=advance)
    say(out)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say what to install when an import fails."""
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


def _tell(manifest: Manifest) -> None:
    for remark in manifest.remarks:
        tell(f"note: {remark}")
    for line in _table(manifest):
        tell(line)


def _table(manifest: Manifest) -> Iterator[str]:
    """Counts, in columns."""
    columns = ("modality", "region", "plane", "split", "slices", "patients")
    rows = [columns, *(tuple(str(cell[name] or "-") for name in columns) for cell in manifest.counts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = [text.ljust(width) for text, width in zip(row[:4], widths[:4], strict=True)]
        numbers = [text.rjust(width) for text, width in zip(row[4:], widths[4:], strict=True)]
        yield "  ".join(texts + numbers)
    yield f"{manifest.slices} slices of {manifest.size}×{manifest.size} pixels, {len(manifest.split)} patients"
