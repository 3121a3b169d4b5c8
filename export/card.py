"""The model card of a bundle, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medvar_engine.bundle import Cell

_WHAT = (
    "A MedVAR model: a multi-scale VQ tokenizer and a next-scale transformer (arXiv 2602.14512; arXiv 2404.02905). "
    "It makes **synthetic** CT and MR slices. No image it makes may be passed off as one of a real person."
)
FEW_PEOPLE = 1000  # below this a generative model must be expected to repeat its training images


def model_card(
    name: str,
    licence: str,
    training_data: str,
    attributions: Iterable[str],
    cells: tuple[Cell, ...],
    figures: Mapping[str, float],
    notes: str,
) -> str:
    """What and whom the model saw, what it must not be used for, and its measured quality."""
    table = "\n".join(
        f"| {cell.condition} | {cell.slices} | {cell.patients} | {_spacing(cell)} "
        f"| {cell.low:g}…{cell.high:g} {cell.unit} |"
        for cell in cells
    )
    sections = [
        f"# {name}",
        _WHAT,
        "## What it must not be used for",
        _warning(cells),
        "## What it was trained on",
        training_data,
        f"| kind of slice | training slices | people | pixel | values |\n|---|---|---|---|---|\n{table}",
        "### Licences and attributions",
        "\n".join(f"- {line}" for line in attributions),
        "## Measured quality",
        _figures(figures),
        "## Licence",
        licence,
    ]
    if notes:
        sections += ["## Notes", notes.strip()]
    return "\n\n".join(sections) + "\n"


def _warning(cells: tuple[Cell, ...]) -> str:
    people = max((cell.patients for cell in cells), default=0)
    lines = [
        "- Diagnosis, treatment planning, or any decision about a patient.",
        "- Training or validating clinical software as if the images were patients.",
        "- Claims about how common a finding is, or about any group of people.",
    ]
    if people < FEW_PEOPLE:
        lines.append(
            f"- Anything that relies on the privacy of its training images: no kind of slice was learnt from more than "
            f"{people} people, so the model **memorises**. It is a demonstration of the method and of this software."
        )
    return "\n".join(lines)


def _figures(figures: Mapping[str, float]) -> str:
    if not figures:
        return "Not measured."
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in figures.items())
    return (
        "On slices of people that were not trained on: `psnr` in dB of the tokenizer's reconstruction, "
        "`held_out_loss` in nats a token of the transformer, `codes_used` of the codebook.\n\n"
        f"| figure | value |\n|---|---|\n{rows}"
    )


def _spacing(cell: Cell) -> str:
    return f"{cell.spacing_mm:.2f} mm" if cell.spacing_mm else "not known"
