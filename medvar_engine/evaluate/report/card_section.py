"""Adds an evaluation to the model card of its bundle: the findings as text, and all metrics as a separate file.

It works on the JSON file of a report, so it needs neither torch nor the images.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvar_engine.bundle.add_files import add_to_bundle
from medvar_engine.bundle.read import CARD, Bundle
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.baseline_images import JUDGED, Baseline
from medvar_engine.evaluate.report.measures import measures, with_interval
from medvar_engine.evaluate.report.texture_rows import EXPECTED, texture_rows
from medvar_engine.untrusted import plain_json

EVALUATION = "evaluation.json"
MAX_BYTES = 16 * 2**20
_BEGIN, _END = "<!-- evaluation -->", "<!-- end of the evaluation -->"
_SECTION = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL)
_METRICS = {"frechet": "Fréchet distance", "kid": "KID", "precision": "precision", "recall": "recall"}
_WRITTEN = "This is not an evaluation written by `medvar evaluate images`."
_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


def to_card(values: Mapping[str, Any]) -> str:
    """The findings and the main metrics of an evaluation as Markdown. ``values`` is its JSON.

    Raises `MedvarError` when ``values`` is not an evaluation.
    """
    try:
        return _to_card(values)
    except _DAMAGED as error:
        raise MedvarError(
            f"This is not an evaluation written by this version of `medvar evaluate images` ({error!r})."
        ) from error


def put_into_card(bundle: Bundle, report: Path) -> Bundle:
    """Put the evaluation ``report``, a JSON file, into the card of ``bundle``, instead of an earlier one.

    The report is added to the bundle as `EVALUATION`; the digest of the model does not change. Raises `MedvarError`
    when the report cannot be read, is not an evaluation, or belongs to images of another model.
    """
    values = plain_json.read_object(report, "an evaluation", _WRITTEN, most=MAX_BYTES)
    try:
        section = to_card(values)
    except MedvarError as error:
        raise MedvarError(f"{report}: {error}") from error
    models = values.get("models")
    if models != [bundle.bundle_id]:
        digests = ", ".join(str(model)[:12] + "…" for model in models) if isinstance(models, list) else "none"
        raise MedvarError(
            f"{report} evaluates images of another model (sha256 {digests}) than {bundle.name} "
            f"({bundle.bundle_id[:12]}…). Evaluate this one: `medvar evaluate images BUNDLE --data SLICES`."
        )
    card = with_section(bundle.card, section)
    content = json.dumps(values, indent=1, ensure_ascii=False).encode("utf-8")
    return add_to_bundle(bundle.path, {CARD: card.encode("utf-8"), EVALUATION: content})


def with_section(card: str, section: str) -> str:
    """A card with ``section`` as its evaluation, which replaces an earlier one or is added at the end."""
    marked = f"{_BEGIN}\n{section.strip()}\n{_END}"
    if _SECTION.search(card):
        return _SECTION.sub(lambda _: marked, card, count=1)
    return f"{card.rstrip()}\n\n{marked}\n"


def headline(bundle: Bundle) -> str | None:
    """The evaluation in a bundle as one line; None without one.

    Raises `MedvarError` when it is damaged.
    """
    if EVALUATION not in bundle.sha256:
        return None
    try:
        values = plain_json.loads(bundle.read(EVALUATION))
        parts = [f"{int(values['counts'][JUDGED])} images"]
        for one in values["encoders"]:
            ours, real = (with_interval(one["rows"][name]["frechet"]) for name in (JUDGED, Baseline.REAL))
            parts.append(f"Fréchet distance by {_text(one['encoder']['name'])} {ours}, of other patients {real}")
        if values["memorisation"] is not None:
            parts.append(f"{float(values['memorisation']['flagged']['value']):.1%} look like copies")
    except _DAMAGED as error:
        raise MedvarError(f"{bundle.path / EVALUATION} is not an evaluation of this version ({error!r}).") from error
    return "; ".join(parts)


def _to_card(values: Mapping[str, Any]) -> str:
    counts = {name: int(values["counts"][name]) for name in (JUDGED, "training", "held out")}
    findings = [f"- **{_text(one['title'])}.** {_text(one['text'])}" for one in values["findings"]]
    rows = []
    for one in values["encoders"]:
        for name in (JUDGED, Baseline.REAL):
            metrics = [with_interval(one["rows"][name][key]) for key in _METRICS]
            rows.append(f"| {' | '.join((_text(one['encoder']['name']), name, *metrics))} |")
    compared = (
        f"By medvar {_text(values['version'])}: {counts[JUDGED]} synthetic images against {counts['training']} "
        f"training slices and {counts['held out']} slices of held-out patients. Intervals are 95 %."
    )
    lines = [
        "## Evaluation",
        "",
        compared,
        "",
        *findings,
        "",
        f"| encoder | images | {' | '.join(_METRICS.values())} |",
        "|" + "---|" * (2 + len(_METRICS)),
        *rows,
        "",
        "| measure | value | real slices, or ideal value |",
        "|---|---|---|",
        *(f"| {' | '.join(map(_text, one))} |" for one in measures(values)),
        *_texture(values.get("texture") or {}),
    ]
    return "\n".join(lines) + "\n"


def _texture(values: Mapping[str, Any]) -> list[str]:
    """A table of gradients and octaves; empty for evaluations of earlier versions."""
    if not values:
        return []
    rows = [
        f"| {_text(name)} | {float(one['gradient']):.2f} | {' | '.join(f'{float(x):.2f}' for x in one['octaves'])} |"
        for name, one in texture_rows(values)
    ]
    octaves = [f"{2**i}–{2 ** (i + 1)}" for i in range(len(next(iter(values.values()))["octaves"]))]
    return [
        "",
        (
            "Detail, synthetic divided by real (1 is ideal): strength of the gradient, and power in each octave of "
            f"spatial frequency, in periods per image. {EXPECTED}"
        ),
        "",
        f"| images | gradient | {' | '.join(octaves)} |",
        "|" + "---|" * (2 + len(octaves)),
        *rows,
    ]


def _text(value: object) -> str:
    """One line of text, escaped for Markdown."""
    if not isinstance(value, str):
        raise TypeError(f"text was expected, not {value!r:.40}")
    return html.escape(" ".join(value.split()), quote=False).replace("|", "\\|")
