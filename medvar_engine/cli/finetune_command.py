"""``medvar finetune``: adapts a bundle to a user's own slices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvar_engine.cli.console import needs, print_message, print_result
from medvar_engine.errors import MedvarError

if TYPE_CHECKING:
    from medvar_engine.bundle.read import Bundle


def finetune(
    base: Annotated[str, typer.Argument(help="A bundle (its folder, or the name of a shipped one), or weights.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Training settings as name=value.")] = None,
    data: Annotated[Path, typer.Option(help="Prepared slices with held-out patients.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="Folder to write: base/, run/ and bundle/.")] = ...,  # type: ignore[assignment]
    tokenizer: Annotated[Path | None, typer.Option(help="tokenizer.safetensors, if BASE is a file of weights.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Train all weights.")] = False,
    rank: Annotated[int, typer.Option(help="Rank of the low-rank changes, without --full.", min=1)] = 8,
    steps: Annotated[
        int | None, typer.Option(help="Largest number of steps; by default it depends on the number of slices.", min=1)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new model; by default the name of the folder.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the new weights; by default the licence of the base.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Precision of the new bundle; see `medvar export`.")
    ] = "float16-weights",
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint in OUT/run.")] = False,
) -> None:
    """Adapt a trained model to your own slices."""
    try:
        from medvar_engine.bundle.add_files import add_to_bundle
        from medvar_engine.bundle.read import PREVIEW, read_bundle
        from medvar_engine.memorisation.training_index import GATE
        from medvar_engine.train.finetune import DataAmount, describe_plan, settings
        from medvar_engine.train.finetune import finetune as train
        from medvar_engine.train.stop_signal import EXIT_STOPPED, StoppedEarly
        from medvar_export.finetuned import Origin, describe_finetuned
        from medvar_export.from_bundle import write_guide
        from medvar_export.write_bundle import export_bundle
    except ImportError as error:
        raise needs("train,cpu", error) from error

    if (out / "bundle").exists():
        raise MedvarError(f"{out / 'bundle'} exists already; choose another --out or remove it first.")
    warnings = DataAmount.of(data).warnings
    coder, transformer, bundle = _weights(base, tokenizer, out / "base")
    if (terms := licence or (bundle.licence if bundle else None)) is None:
        raise MedvarError("The licence of these weights is unknown: give the licence of the new model with --licence.")
    guide = write_guide(bundle, out / "base") if bundle else None  # before training, because a damaged one is refused
    config = settings(
        coder, transformer, data, out / "run", rank=0 if full else rank, steps=steps, overrides=overrides or ()
    )
    print_message(describe_plan(config))
    for warning in warnings:
        print_message(f"warning: {warning}")
    try:
        tuned = train(config, resume=resume)
    except StoppedEarly as stopped:
        print_message(str(stopped))
        raise typer.Exit(EXIT_STOPPED) from stopped
    origin = Origin(
        name=f"the bundle {bundle.name} (digest {bundle.bundle_id}, {bundle.licence})"
        if bundle
        else f"the weights {base}",
        bundle=bundle,
        how=f"changes of rank {config.lora_rank}" if config.lora_rank else "all weights",
        before=tuned.before,
        after=tuned.after,
        minutes=tuned.minutes,
    )
    print_message(origin.summary)
    about = describe_finetuned(name or out.name, terms, data, config.out / "log.csv", origin)
    made = export_bundle(
        coder,
        tuned.transformer,
        out / "bundle",
        about,
        precision=precision,  # type: ignore[arg-type]
        guide=guide,
        log=print_message,
    )
    if (
        bundle is not None and PREVIEW in bundle.sha256
    ):  # the tokenizer, and therefore the previews, are those of the base
        parity = {**read_bundle(made).parity, "preview": bundle.parity.get("preview", 0.0)}
        add_to_bundle(made, {PREVIEW: bundle.read(PREVIEW)}, parity=parity)
    if bundle is not None and GATE in bundle.sha256:
        print_message(
            f"note: {bundle.name} holds back copies of its training slices; the new model, which may repeat them, too, "
            f"does not. `medvar gate {made} --data {data}` makes it do so, but for the new slices only."
        )
    print_result(made)


def _weights(base: str, tokenizer: Path | None, folder: Path) -> tuple[Path, Path, Bundle | None]:
    """Tokenizer and transformer as files, and the bundle that they come from."""
    from medvar_engine.bundle.read import open_bundle

    if base.endswith(".safetensors"):
        if tokenizer is None:
            raise MedvarError(f"{base} is only a transformer: give its tokenizer with --tokenizer.")
        return tokenizer, Path(base).expanduser(), None
    if tokenizer is not None:
        raise MedvarError("A bundle contains its tokenizer: leave out --tokenizer.")
    from medvar_export.from_bundle import write_weights

    bundle = open_bundle(base)
    return *write_weights(bundle, folder), bundle
