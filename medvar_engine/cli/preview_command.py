"""``medvar preview``: adds a light decoder for previews to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvar_engine.cli.console import needs, print_result


def preview(
    bundle: Annotated[str, typer.Argument(help="Folder or name of the bundle.")],
    decoder: Annotated[Path, typer.Argument(help="preview.safetensors, trained with stage=preview for its tokenizer.")],
) -> None:
    """Add a light decoder for previews to a bundle, which makes previews much cheaper.

    Finished images do not change.
    """
    try:
        from medvar_engine.models.weight_files import load_preview_for
        from medvar_export.preview_graph import export_preview
    except ImportError as error:
        raise needs("train,cpu", error) from error
    from medvar_engine.bundle.add_files import add_to_bundle
    from medvar_engine.bundle.read import PREVIEW, open_bundle
    from medvar_engine.errors import MedvarError

    found = open_bundle(bundle)
    model = load_preview_for(decoder, found.codebook(), found.name)
    if model.config.image_channels != found.image_channels:  # the codebook is that of the grey tokenizer, too
        raise MedvarError(
            f"{decoder} makes previews of {model.config.image_channels} channels, but {found.name} images of "
            f"{found.image_channels}. Export the model as a grey one: `medvar export … --data SLICES`."
        )
    graph, difference = export_preview(model, found.schedule.latent_side)
    parity = {**found.parity, "preview": difference}
    print_result(add_to_bundle(found.path, {PREVIEW: graph}, parity=parity).path)
