"""``medvar fine``: a bundle gets a small transformer for its fine scales."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvar_engine.cli.console import needs


def fine(
    bundle: Annotated[str, typer.Argument(help="Folder or name of the bundle.")],
    transformer: Annotated[
        Path, typer.Argument(help="transformer.safetensors, smaller, trained on the same slices and tokens.")
    ],
    from_scale: Annotated[int, typer.Option(help="The first scale that it draws; `medvar info` lists scales.", min=1)],
) -> None:
    """Put a small transformer into a bundle: `medvar generate --collaborative` lets it draw the fine scales.

    The manifest changes last. Without --collaborative images stay what they are.
    """
    try:
        from medvar_export.fine import FineWeights, export_fine, load_fine
    except ImportError as error:
        raise needs("train,cpu", error) from error
    from medvar_engine.backends.bundle_info import info_of
    from medvar_engine.bundle import FINE, find_bundle, read_bundle
    from medvar_engine.write.into_bundle import add_to_bundle

    found = read_bundle(find_bundle(bundle))
    network = load_fine(FineWeights(transformer, from_scale), info_of(found, ""))
    graph, about, difference = export_fine(network, from_scale, found)
    parity = {**found.parity, "fine_logits": difference}
    typer.echo(add_to_bundle(found.path, {FINE: graph}, fine=about, parity=parity).path)
