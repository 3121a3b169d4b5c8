"""How verbs speak: results on standard output, everything else on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from medvar_engine.errors import MedvarError

if TYPE_CHECKING:
    from rich.progress import Progress


def fail(message: str) -> None:
    """An error for a person."""
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(message, err=True)


def tell(message: str) -> None:
    """A remark on the way."""
    typer.echo(message, err=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar


def needs(extra: str, error: ImportError) -> MedvarError:
    """What to say when an optional part of the installation is missing."""
    return MedvarError(f"This needs {error.name}, which is not installed: `pip install 'napari-medvar[{extra}]'`.")
