"""``medvar info``: what a bundle or a written image is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    target: Annotated[
        str | None, typer.Argument(help="A bundle, or a file that medvar wrote; the shipped bundle by default.")
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Print the whole model card.")] = False,
) -> None:
    """Say what a bundle knows and was trained on, or how an image was made."""
    from medvar_engine.bundle import find_bundle, read_bundle
    from medvar_engine.conditions import listed

    if target and Path(target).is_file() and Path(target).name != "bundle.json":
        _image(Path(target))
        return
    bundle = read_bundle(find_bundle(target))
    for name in bundle.sha256:  # every file is read once, so that damage shows here and not later
        bundle.read(name)
    if card:
        typer.echo(bundle.card)
        return
    typer.echo(f"{bundle.name}  ({bundle.path})")
    size, scales = bundle.image_size, len(bundle.schedule)
    typer.echo(f"  images      {size}×{size}, {scales} scales of sides {bundle.schedule}")
    for factor, names in bundle.labels.to_dict().items():
        typer.echo(f"  {factor:<11} {listed(names)}")
    typer.echo(f"  precision   {bundle.precision}")
    typer.echo(f"  licence     {bundle.licence}")
    typer.echo(f"  trained on  {bundle.training_data}")
    typer.echo("  parity      " + ", ".join(f"{name} {value:.2g}" for name, value in bundle.parity.items()))
    typer.echo(f"  sha256      {bundle.digest}")


def _image(path: Path) -> None:
    from medvar_engine.write.provenance import read_trace

    trace = read_trace(path)
    request = trace.request
    typer.echo(f"{path}: synthetic, made by medvar {trace.version}")
    typer.echo(f"  condition   {request.condition}")
    typer.echo(f"  seed        {request.seed}")
    typer.echo("  sampling    " + ", ".join(f"{name} {value:g}" for name, value in request.sampling.to_dict().items()))
    typer.echo(f"  scales      {trace.pyramid.depth} of {len(trace.pyramid.schedule)}")
    typer.echo(f"  model       {trace.model}")
    steps, parent = 0, trace.parent
    while parent:
        steps, parent = steps + 1, parent.parent
    if steps:
        typer.echo(f"  edits       {steps}")
