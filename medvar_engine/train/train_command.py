"""The command `medvar train`, which is also ``python -m medvar_engine.train``."""

from __future__ import annotations

from typing import Annotated

import typer

from medvar_engine.errors import MedvarError


def train(
    config: Annotated[str, typer.Argument(help="A .toml or .yaml file of settings, or the first name=value.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as name=value; they override the file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint in out/.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only estimate the cost of the run.")] = False,
    tflops: Annotated[
        float | None, typer.Option(help="With --dry-run: TFLOP/s of the machine, to estimate the time.", min=1e-6)
    ] = None,
    processes: Annotated[
        int, typer.Option(help="With --dry-run: number of processes that will train together.", min=1)
    ] = 1,
) -> None:
    """Train a tokenizer, a transformer, or a light decoder for previews, from prepared slices."""
    try:
        from medvar_engine.train.config import config_from_arguments
        from medvar_engine.train.dry_run import plan
        from medvar_engine.train.run_training import run
        from medvar_engine.train.stop_signal import EXIT_INTERRUPTED, EXIT_STOPPED, StoppedEarly
    except ImportError as error:
        raise MedvarError(
            f"Training needs {error.name}, which is not installed: `pip install 'napari-medvar[train]'`."
        ) from error
    settings = config_from_arguments([config, *(overrides or [])])
    if dry_run:
        typer.echo(plan(settings, processes).describe(tflops))
        return
    try:
        typer.echo(run(settings, resume=resume))
    except StoppedEarly as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(EXIT_STOPPED) from stopped
    except KeyboardInterrupt as interrupted:
        typer.echo("Continue from the last checkpoint with --resume.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from interrupted
