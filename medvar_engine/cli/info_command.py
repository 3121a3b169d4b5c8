"""``medvar info``: describes a bundle or a written image."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvar_engine.cli.console import print_result

if TYPE_CHECKING:
    from medvar_engine.bundle.read import Bundle


def info(
    target: Annotated[
        str | None, typer.Argument(help="A bundle, or a file that medvar wrote; the shipped bundle by default.")
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Print the whole model card.")] = False,
    mark: Annotated[
        bool,
        typer.Option("--mark", help="Detect the invisible mark in an image or volume of any program."),
    ] = False,
) -> None:
    """Show the labels and training data of a bundle, or how an image was made."""
    from medvar_engine.bundle.read import open_bundle
    from medvar_engine.conditions import listed
    from medvar_engine.evaluate.report.card_section import headline
    from medvar_engine.memorisation.training_index import known_slices

    if mark:
        _look_for_mark(target)
        return
    if target and Path(target).is_file() and Path(target).name != "bundle.json":
        _image(Path(target))
        return
    bundle = open_bundle(target)
    bundle.verify()
    if card:
        print_result(bundle.card)
        return
    print_result(f"{bundle.name}  ({bundle.path})")
    size, scales = bundle.image_size, len(bundle.schedule)
    print_result(f"  images      {size}×{size}, {scales} scales of sides {bundle.schedule}")
    for factor, known in bundle.labels.to_dict().items():
        print_result(f"  {factor:<11} {f'0 to 1, in {known} steps' if factor == 'position' else listed(known)}")
    print_result(f"  precision   {bundle.precision}")
    print_result(f"  previews    {_previews(bundle)}")
    print_result(f"  guidance    away from {'a smaller model' if bundle.guide else 'the model without a condition'}")
    if bundle.default_condition:
        print_result(f"  default     {bundle.default_condition}")
    slices = known_slices(bundle)
    copies = f"of {slices} training slices are known" if slices else "are not known: no training index"
    print_result(f"  copies      {copies}")
    print_result(f"  evaluated   {headline(bundle) or 'not: see `medvar evaluate images`'}")
    print_result(f"  licence     {bundle.licence}")
    print_result(f"  trained on  {bundle.training_data}")
    print_result("  parity      " + ", ".join(f"{name} {value:.2g}" for name, value in bundle.parity.items()))
    print_result(f"  sha256      {bundle.bundle_id}")


def _previews(bundle: Bundle) -> str:
    """How previews are made. If every scale has its own codes, the scales are images themselves."""
    from medvar_engine.bundle.read import PREVIEW

    codes = bundle.codebook()
    if codes is not None and codes.ndim == 3:
        return "the scales themselves, which are images"
    return f"by {'a light' if PREVIEW in bundle.sha256 else 'the full'} decoder"


def _image(path: Path) -> None:
    from medvar_engine.write.provenance import read_about_pixels, read_traces

    traces, pixels = read_traces(path), read_about_pixels(path)
    trace, request = traces[0], traces[0].request
    near = pixels.get("nearness")
    copied = isinstance(near, dict) and bool(near.get("flagged"))
    real = "a reconstruction of a real image, which shows a patient"
    kind = real if trace.shows_patient(copied=copied) else "synthetic"
    print_result(f"{path}: {kind}, made by medvar {trace.version}")
    print_result(f"  condition   {request.condition}")
    print_result(f"  seed        {request.seed}")
    sampling = asdict(request.sampling) | ({"skipped": request.skipped} if request.skipped else {})
    print_result("  sampling    " + ", ".join(f"{name} {value:g}" for name, value in sampling.items()))
    if place := request.stack:
        which = f"slice {place.slice + 1}" if len(traces) == 1 else f"{len(traces)} slices; the first is described here"
        print_result(f"  stack       {which}")
    print_result(f"  scales      {trace.pyramid.depth} of {len(trace.pyramid.schedule)}")
    print_result(f"  model       {trace.bundle_id}")
    steps, parent = 0, trace.parent
    while parent:
        steps, parent = steps + 1, parent.parent
    if steps:
        print_result(f"  edits       {steps}")
    marks = {"burned_in": "SYNTHETIC is burned in", "invisible_mark": "they contain the invisible mark"}
    if said := [text for name, text in marks.items() if pixels.get(name)]:
        print_result(f"  pixels      {', '.join(said)}")
    if isinstance(near, dict):
        verdict = "MAY BE A COPY of a training slice" if near.get("flagged") else "no copy was found"
        print_result(f"  copies      {verdict}: distance {near.get('distance')}, threshold {near.get('threshold')}")


def _look_for_mark(target: str | None) -> None:
    from medvar_engine.errors import MedvarError
    from medvar_engine.write.compare import grey_slices
    from medvar_engine.write.invisible import mark_score, threshold_of

    if not target or not Path(target).is_file():
        raise MedvarError("--mark detects the invisible mark in an image: give a PNG, NIfTI or DICOM file.")
    scores = [mark_score(pixels) for pixels in grey_slices(Path(target))]
    threshold = threshold_of(len(scores))
    marked = sum(score > threshold for score in scores)
    found = "contains the invisible mark" if marked else "shows no invisible mark, which proves little"
    if marked and len(scores) > 1:
        found += f" in {marked} of {len(scores)} slices"
    print_result(f"{target}: {found} (score {max(scores):.1f}, threshold {threshold:.3g})")
