"""Output of the commands: results on standard output, everything else on standard error."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from medvar_engine.errors import MedvarError

if TYPE_CHECKING:
    from rich.progress import Progress


def print_result(text: object = "") -> None:
    """Print a line of a result. Text from untrusted files cannot control the terminal."""
    typer.echo(harmless(str(text)))


def print_error(message: str) -> None:
    """Print an error message."""
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    print_message(message)


def print_message(message: str) -> None:
    """Print a note or a warning on standard error."""
    typer.echo(harmless(message), err=True)


def harmless(text: str) -> str:
    """``text`` with every control character and invisible character written as its code."""
    return "".join(letter if _is_seen(letter) else ascii(letter)[1:-1] for letter in text)


def _is_seen(letter: str) -> bool:
    return letter.isprintable() or letter in "\n\t" or unicodedata.category(letter) == "Zs"


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar


def needs(extra: str, error: ImportError) -> MedvarError:
    """The error for a missing optional dependency of the extra ``extra``."""
    return MedvarError(f"This needs {error.name}, which is not installed: `pip install 'napari-medvar[{extra}]'`.")
