"""``python -m medvar_engine.train CONFIG [name=value …] [--resume]``: `medvar train` as a module, for ``torchrun``."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import typer

from medvar_engine.errors import MedvarError, unforeseen
from medvar_engine.train.train_command import train


def main(arguments: Sequence[str] | None = None) -> None:
    """Train one stage, then exit.

    The exit code is 0 for a finished run, 1 for an error of the user, 2 for wrong arguments, 75 if a signal stopped the
    run after it had saved a checkpoint, and 130 after Ctrl-C.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(train)
    try:
        app(args=arguments, prog_name="python -m medvar_engine.train")
    except MedvarError as error:
        typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(str(error), err=True)
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()  # for the log of a cluster job, which cannot be repeated with --debug
        typer.echo(unforeseen(error), err=True)
        sys.exit(70)


if __name__ == "__main__":
    main()
