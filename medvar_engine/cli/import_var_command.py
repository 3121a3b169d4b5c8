"""``medvar import-var``: converts the published VAR weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvar_engine.cli.console import needs, print_result


def import_var(
    tokenizer: Annotated[Path, typer.Argument(help="vae_ch160v4096z32.pth")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    transformer: Annotated[Path | None, typer.Option(help="var_d16.pth, var_d20.pth, …")] = None,
) -> None:
    """Convert the published weights of VAR (FoundationVision/VAR)."""
    try:
        from medvar_engine.models.import_var import import_var as run
    except ImportError as error:
        raise needs("train", error) from error
    for path in run(tokenizer, transformer, out):
        print_result(path)
