"""``medvar export``: exports trained weights as a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvar_engine.cli.console import needs, print_message, print_result

if TYPE_CHECKING:
    from medvar_engine.conditions import Condition


def export(
    tokenizer: Annotated[Path, typer.Argument(help="tokenizer.safetensors")],
    transformer: Annotated[Path, typer.Argument(help="transformer.safetensors")],
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights.")],
    data: Annotated[Path | None, typer.Option(help="Prepared slices that it was trained on.")] = None,
    log: Annotated[
        list[Path] | None, typer.Option(help="log.csv of a training run, for the model card; repeat for more.")
    ] = None,
    notes: Annotated[Path | None, typer.Option(help="Markdown to add to the model card.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; by default the name of the folder.")] = None,
    preview: Annotated[
        Path | None,
        typer.Option(help="preview.safetensors: a light decoder for previews, trained for the same tokenizer."),
    ] = None,
    guide: Annotated[
        Path | None,
        typer.Option(
            help="transformer.safetensors of a smaller transformer, trained briefly: guidance moves away from it."
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, float16-weights, float16 (for GPUs), int8-weights (for CPUs).")
    ] = "float32",
    top_k: Annotated[int, typer.Option(help="Default top-k of this model; 0 keeps all tokens.", min=0)] = 0,
    top_p: Annotated[float, typer.Option(help="Default top-p of this model.")] = 0.96,
    guidance: Annotated[float, typer.Option(help="Default guidance of this model.")] = 1.5,
    coarse_guidance: Annotated[
        float,
        typer.Option(
            help="Guidance at the coarsest scale, as a share of --guidance. It rises from there to the finest scale; 0 "
            "as in VAR, 1 for the same guidance at every scale."
        ),
    ] = 0.0,
    coarse_top_p: Annotated[
        float,
        typer.Option(
            help="Top-p at the coarsest scale, as a share of --top-p. It rises from there to the finest scale; 1 for "
            "the same top-p at every scale."
        ),
    ] = 1.0,
    default: Annotated[
        list[str] | None,
        typer.Option(help="Label of images if none is requested, e.g. region=brain; repeat for more factors."),
    ] = None,
) -> None:
    """Export trained weights as a bundle: ONNX graphs, compared with torch, and a model card."""
    try:
        from medvar_export.describe import describe
        from medvar_export.model_card import model_card
        from medvar_export.write_bundle import Description, export_bundle
    except ImportError as error:
        raise needs("train,cpu", error) from error
    from medvar_engine.errors import MedvarError
    from medvar_engine.request import Sampling

    title = name or out.name
    sampling = Sampling(
        guidance=guidance, top_k=top_k, top_p=top_p, coarse_guidance=coarse_guidance, coarse_top_p=coarse_top_p
    )
    try:
        extra = notes.read_text(encoding="utf-8") if notes else ""
    except (OSError, UnicodeDecodeError) as error:
        raise MedvarError(f"Cannot read the notes {notes}: {error}") from error
    if data:
        description = describe(title, licence, data, logs=log or (), notes=extra, sampling=sampling)
    else:
        unknown = "Not stated by whoever exported this bundle."
        card = model_card(title, licence, unknown, (), (), {}, extra)
        description = Description(title, licence, (), unknown, card, sampling=sampling)
    folder = export_bundle(
        tokenizer,
        transformer,
        out,
        replace(description, default_condition=_condition(default)),
        precision=precision,  # type: ignore[arg-type]
        data=data,
        preview=preview,
        guide=guide,
        log=print_message,
    )
    print_result(folder)


def _condition(given: list[str] | None) -> Condition | None:
    """``FACTOR=NAME`` each; None when nothing is given. Raises `MedvarError` for anything else."""
    from medvar_engine.conditions import NAMED, Condition
    from medvar_engine.errors import MedvarError

    if not given:
        return None
    pairs = [text.partition("=") for text in given]
    if wrong := [factor for factor, equals, _ in pairs if not equals or factor not in NAMED]:
        raise MedvarError(f"--default is FACTOR=NAME with one of {', '.join(NAMED)}, but got {wrong[0]!r}.")
    return Condition.from_dict({factor: name for factor, _, name in pairs})
