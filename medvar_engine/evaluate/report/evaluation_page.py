"""An evaluation as one HTML page, and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.evaluate.evaluation import ByEncoder, Evaluation, Row, label_of
from medvar_engine.evaluate.images.baseline_images import JUDGED
from medvar_engine.evaluate.images.synthetic_images import Synthetic
from medvar_engine.evaluate.metrics.efficiency import efficiencies
from medvar_engine.evaluate.metrics.metric_table import BETTER, LARGEST
from medvar_engine.evaluate.report.findings import findings
from medvar_engine.evaluate.report.measures import measures
from medvar_engine.evaluate.report.metric_cell import metric_cell
from medvar_engine.evaluate.report.pair_section import pair_section, stack_section
from medvar_engine.evaluate.report.texture_rows import EXPECTED, texture_rows
from medvar_engine.evaluate.report.utility_section import utility_section
from medvar_engine.page.curves import Curve, curves
from medvar_engine.page.document import Section, document, note
from medvar_engine.page.elements import Child, Markup, counted, element, join, jpeg, table
from medvar_engine.types import FloatArray
from medvar_engine.value_range import grey_levels

TILES, SIDE, PAIRS = 8, 96, 12

_EFFICIENCIES = tuple(f"Efficiency, {reading}, γ = 1" for reading in efficiencies(0.0, 0.0))
_SHORT = {
    "frechet": "Fréchet",
    "kid": "KID",
    "cmmd": "CMMD",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "authentic": "AuthPct",
    "copying": "C_T",
}


def to_dict(found: Evaluation) -> dict[str, Any]:
    """All metrics and findings as plain values for JSON; numbers that are not finite become None."""
    sentences = [dataclasses.asdict(one) for one in findings(found)]
    values: dict[str, Any] = _finite({**dataclasses.asdict(found), "findings": sentences})
    return values


def page(found: Evaluation, synthetic: Synthetic, data: SliceDataset) -> Markup:
    """The report as HTML. ``data`` is the training split."""
    counts = found.counts
    lead = element(
        "p",
        f"{counted(counts[JUDGED], 'synthetic image')} against {counted(counts['training'], 'training slice')} and "
        f"{counted(counts['held out'], 'slice')} of held-out patients. Every table also contains real, blurred, "
        "repeated and random images for comparison, because a metric has no meaning by itself. No image is suitable "
        "for diagnosis.",
    )
    sections = [
        Section("examples", "Examples", _examples(synthetic, data)),
        Section("measures", "Main measures", _measures(found)),
        Section("quality", "Quality", join(*map(_quality, found.encoders))),
        Section("labels", "Label by label", join(*map(_labels, found.encoders), _left_out(found))),
        Section("texture", "Texture", _texture(found)),
        Section("recognition", "Recognition by a classifier", _recognition(found)),
        Section("diversity", "Diversity", _diversity(found)),
        Section("copies", "Memorisation", _copies(found, synthetic, data)),
        Section("pairs", "Masks and stacks", join(pair_section(found.pairs), stack_section(found.stacks))),
        Section("utility", "Usefulness", _utility(found)),
        Section("cost", "Cost", _cost(found)),
        Section("sources", "What was compared", _sources(found)),
    ]
    notes = [note(one.title, one.text, grave=one.grave) for one in findings(found)]
    return document(f"Evaluation of {found.name}", lead, sections, notes)


def _examples(synthetic: Synthetic, data: SliceDataset) -> Markup:
    asked = np.array([label_of(condition) for condition in synthetic.conditions])
    labels = np.array([label_of(condition) for condition in data.conditions.distinct])[data.conditions.codes]
    parts: list[Child] = []
    for label in sorted(set(asked.tolist())):
        mine, real = _spread(np.flatnonzero(asked == label)), _spread(np.flatnonzero(labels == label))
        parts.append(element("h3", label))
        parts.append(_tiles(synthetic.images.batch(mine), "synthetic"))
        parts.append(_tiles(data.batch(real)[:, 0], "training slice") if len(real) else None)
    intro = element(
        "p", "Above: synthetic images of a label. Below: training slices of the same label.", class_="quiet"
    )
    return join(intro, *parts)


def _tiles(images: FloatArray, title: str) -> Markup:
    return element("div", *(jpeg(grey_levels(image), SIDE, title) for image in images), class_="tiles")


def _spread(numbers: np.ndarray) -> np.ndarray:
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, min(TILES, len(numbers))).astype(int))]


def _quality(one: ByEncoder) -> Markup:
    shown = (
        "The other rows have as many images as are evaluated. The 95 % bootstrap interval is below each value. For "
        "synthetic images, images are resampled; for real slices, and for recall and coverage, which are shares of "
        "training slices, patients are resampled. If there is no interval, its tooltip gives the reason. All metrics "
        f"except the Fréchet distance compare pairs of at most {LARGEST} random images of each side; the search for "
        "copies of training slices is reported under memorisation."
    )
    parts: list[Child] = [
        element("h3", f"By {one.encoder['name']}"),
        _rows("images", one.rows),
        element("p", shown, class_="quiet"),
    ]
    if one.bias is not None:
        line = tuple(zip(map(float, one.bias.sizes), one.bias.distances, strict=True))
        end = (float(one.bias.sizes[0]), one.bias.unbiased), (float(one.bias.sizes[-1]), one.bias.unbiased)
        drawn = [Curve("measured", line, marked=True), Curve("extrapolated to infinitely many images", end)]
        parts.append(element("div", curves(drawn, "Fréchet distance by number of images", "images"), class_="charts"))
    return join(*parts)


def _labels(one: ByEncoder) -> Markup:
    if not one.labels:
        return Markup("")
    return join(element("h3", f"By {one.encoder['name']}"), _rows("label", one.labels))


def _rows(first: str, rows: dict[str, Row]) -> Markup:
    names = [name for name in _SHORT if any(row.get(name) for row in rows.values())]
    body: list[tuple[Child, ...]] = [
        (title, *(metric_cell(row[name]) for name in names)) for title, row in rows.items()
    ]
    return table((first, *(f"{_SHORT[name]} ({BETTER[name]})" for name in names)), body)


def _left_out(found: Evaluation) -> Markup:
    if not found.left_out:
        return Markup("")
    return element("p", f"Labels with too few images: {', '.join(found.left_out)}.", class_="quiet")


def _texture(found: Evaluation) -> Markup:
    octaves = max((len(one.octaves) for one in found.texture.values()), default=0)
    rows: list[tuple[Child, ...]] = [
        (name, f"{one['slices']} {one['against']}", *(f"{ratio:.2f}" for ratio in (one["gradient"], *one["octaves"])))
        for name, one in texture_rows(to_dict(found)["texture"])
    ]
    intro = (
        "Synthetic divided by real: the mean strength of the gradient, and the mean power of each octave of spatial "
        "frequency, in periods per image. 1 is ideal; lower values mean too smooth, higher values too rough. "
        f"{EXPECTED}"
    )
    columns = ("label", "real slices", "gradient", *(f"{2**i} to {2 ** (i + 1)}" for i in range(octaves)))
    return join(element("p", intro, class_="quiet"), table(columns, rows))


def _measures(found: Evaluation) -> Markup:
    rows: list[tuple[Child, ...]] = [*measures(to_dict(found))]
    return table(("measure", "value", "real slices, or ideal value"), rows)


def _recognition(found: Evaluation) -> Markup:
    one = found.recognition
    if one is None:
        return element("p", "Not measured: too few slice types have both a region and a plane.")
    rows: list[tuple[Child, ...]] = [
        (name, *("–" if share is None else f"{share:.0%}" for share in shares)) for name, shares in one.by_class.items()
    ]
    intro = (
        "A logistic regression on the features of all encoders was trained on training slices to classify region and "
        "plane. The table shows the share of images in which it finds the requested class, and its accuracy on "
        "held-out slices: where that is low, the result has little meaning."
    )
    return join(element("p", intro, class_="quiet"), table(("region and plane", "synthetic", "held out"), rows))


def _diversity(found: Evaluation) -> Markup:
    rows: list[tuple[Child, ...]] = [
        (name, metric_cell(pair[JUDGED]), metric_cell(pair["training"])) for name, pair in found.similarity.items()
    ]
    intro = "MS-SSIM of pairs of images of one label: 1 for equal images; the value of training slices is ideal."
    return join(element("p", intro, class_="quiet"), table(("label", "synthetic", "training"), rows))


def _copies(found: Evaluation, synthetic: Synthetic, data: SliceDataset) -> Markup:
    one = found.memorisation
    if one is None:
        return element("p", "Copies were not searched for.")
    rows: list[tuple[Child, ...]] = [
        (f"planted copies, {kind}", metric_cell(share, ".1%")) for kind, share in one.copies_found.items()
    ]
    rows += [
        ("synthetic images", metric_cell(one.flagged, ".1%")),
        ("slices of new patients", metric_cell(one.false_alarms, ".1%")),
    ]
    shown = [
        element(
            "figure",
            jpeg(grey_levels(synthetic.images.batch([image])[0]), 2 * SIDE, "synthetic"),
            jpeg(grey_levels(data.batch([slice_])[0, 0]), 2 * SIDE, "training slice"),
            element("figcaption", f"synthetic image {image}, training slice {slice_}"),
        )
        for image, slice_ in one.pairs[:PAIRS]
    ]
    parts: list[Child] = [table(("flagged as copies", "share"), rows), element("div", *shown, class_="pairs")]
    if (ours := found.membership) is not None:
        text = (
            f"Membership inference by likelihood: AUC {ours.auc:.3f} ({ours.low:.3f} to {ours.high:.3f}); 0.5 "
            "is chance."
        )
        parts.insert(1, element("p", text))
    return join(*parts)


def _utility(found: Evaluation) -> Markup:
    if found.utility is None:
        return element("p", "Not measured. Use --utility region, plane, modality or segmentation.")
    return utility_section(found.utility)


def _cost(found: Evaluation) -> Markup:
    if found.seconds_an_image is None:
        return element("p", "Not measured, because existing images were evaluated. Give the bundle to generate them.")
    rows: list[tuple[Child, ...]] = [("seconds per image", found.seconds_an_image), ("parameters", found.parameters)]
    for one in found.encoders:
        distance = one.rows[JUDGED]["frechet"].value
        if distance is not None:
            for reading, value in efficiencies(distance, found.seconds_an_image).items():
                rows.append((f"Efficiency by {one.encoder['name']}, {reading}, γ = 1", value))
    return table(("metric", "value"), rows)


def _sources(found: Evaluation) -> Markup:
    rows: list[tuple[Child, ...]] = [("prepared slices, sha256", found.data), ("medvar", found.version)]
    rows += [("model, sha256", model) for model in found.models]
    rows += [(f"encoder {one.encoder['name']}", json.dumps(one.encoder, ensure_ascii=False)) for one in found.encoders]
    return table(("what", "value"), rows)


def compare(found: Sequence[dict[str, Any]]) -> Markup:
    """Several evaluations, from their JSON, on one page: quality against parameters and time."""
    drawn = []
    for across, key in (("parameters", "parameters"), ("seconds per image", "seconds_an_image")):
        by_encoder: dict[str, list[tuple[float, float]]] = {}
        for one in found:
            for seen in one["encoders"]:
                value = seen["rows"][JUDGED]["frechet"]["value"]
                if one.get(key) and value is not None:
                    by_encoder.setdefault(str(seen["encoder"]["name"]), []).append((float(one[key]), float(value)))
        lines = [Curve(name, tuple(sorted(points)), marked=True) for name, points in by_encoder.items()]
        drawn.append(curves(lines, f"Fréchet distance against {across}", across, log_across=True))
    columns = ("model", "parameters", "seconds per image", "encoder", "Fréchet distance", *_EFFICIENCIES)
    body = join(
        element("div", *drawn, class_="charts"),
        table(columns, [_compared(one, seen) for one in found for seen in one["encoders"]]),
    )
    lead = element("p", "Only evaluations on the same slices with the same encoders can be compared.")
    return document("Comparison of models", lead, [Section("scaling", "Quality, size and speed", body)])


def _compared(one: dict[str, Any], seen: dict[str, Any]) -> tuple[Child, ...]:
    """A row of the table: one model evaluated by one encoder."""
    frechet, seconds = seen["rows"][JUDGED]["frechet"], one.get("seconds_an_image")
    value, low, high = (frechet.get(name) for name in ("value", "low", "high"))
    distance: Child = value if low is None or high is None else f"{value:.4g} ({low:.4g} to {high:.4g})"
    both: Iterable[Child] = (None,) * len(_EFFICIENCIES)
    if value is not None and seconds is not None:
        both = efficiencies(float(value), float(seconds)).values()
    return one["name"], one.get("parameters"), seconds, seen["encoder"]["name"], distance, *both


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
