"""The model card of a bundle in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medvar_engine.bundle.read import SliceType
from medvar_engine.metric_log import Metric

_WHAT = (
    "A MedVAR model: a multi-scale VQ tokenizer and a next-scale transformer (arXiv 2602.14512; arXiv 2404.02905). "
    "It makes **synthetic** CT and MR slices. Its images must never be presented as those of a real patient."
)
_MEANING = (
    "On slices of held-out patients. Of the tokenizer's reconstruction: `psnr` in dB, `ssim` (1 is the "
    "image itself), `feature_distance` by a feature network (0 is the image itself). Of its codebook: `codes_used`, "
    "`code_entropy` in bits. Of the transformer: `loss`, in nats per token."
)
FEW_PATIENTS = 1000  # with fewer patients, a generative model must be expected to repeat its training images


def model_card(
    name: str,
    licence: str,
    training_data: str,
    attributions: Iterable[str],
    slice_types: tuple[SliceType, ...],
    metrics: Mapping[Metric, float],
    notes: str,
) -> str:
    """The model card: training data, limits of use, and measured quality."""
    table = "\n".join(
        f"| {slice_type.condition} | {slice_type.slices} | {slice_type.patients} | {_spacing(slice_type)} "
        f"| {slice_type.low:g}…{slice_type.high:g} {slice_type.unit} |"
        for slice_type in slice_types
    )
    sections = [
        f"# {name}",
        _WHAT,
        "## What it must not be used for",
        _warning(slice_types),
        "## What it was trained on",
        training_data,
        f"| slice type | training slices | patients | pixel | values |\n|---|---|---|---|---|\n{table}",
        "### Licences and attributions",
        "\n".join(f"- {line}" for line in attributions),
        "## Measured quality",
        _quality(metrics),
        "## Licence",
        licence,
    ]
    if notes:
        sections += ["## Notes", notes.strip()]
    return "\n\n".join(sections) + "\n"


def _warning(slice_types: tuple[SliceType, ...]) -> str:
    patients = max((slice_type.patients for slice_type in slice_types), default=0)
    lines = [
        "- Diagnosis, treatment planning, or any decision about a patient.",
        "- Training or validating clinical software as if the images were patients.",
        "- Claims about the frequency of a finding, or about any group of people.",
    ]
    if patients < FEW_PATIENTS:
        lines.append(
            "- Anything that relies on the privacy of its training images: no slice type was trained on more than "
            f"{patients} patients, so the model **memorises**. It demonstrates the method and this software."
        )
    return "\n".join(lines)


def _quality(metrics: Mapping[Metric, float]) -> str:
    """Three tables: for all slices, for each region, and for each scale."""
    if not metrics:
        return "Not measured."
    regions: dict[str, dict[str, float]] = {}
    scales: dict[str, dict[str, float]] = {}
    overall: dict[str, dict[str, float]] = {}
    for metric, value in metrics.items():
        if metric.scale is not None:
            scales.setdefault(str(metric.scale), {})[metric.name] = value
        elif metric.region:
            regions.setdefault(metric.region, {})[metric.name] = value
        else:
            overall[metric.name] = {"value": value}
    parts = [_MEANING, _table("metric", overall)]
    parts += [_table(what, rows) for what, rows in (("region", regions), ("scale", scales)) if rows]
    return "\n\n".join(parts)


def _table(what: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """A table with a row for each name and a column for each metric."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [f"| {what} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        values = (f"{row[column]:.3f}" if column in row else "–" for column in columns)
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines)


def _spacing(slice_type: SliceType) -> str:
    return f"{slice_type.spacing_mm:.2f} mm" if slice_type.spacing_mm else "unknown"
