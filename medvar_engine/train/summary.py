"""A run on one page: what was learned, how fast, and what it looks like."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvar_engine.page.curves import Curve, curves
from medvar_engine.page.document import Section, document
from medvar_engine.page.elements import Child, Markup, counted, element, join, number, png, table
from medvar_engine.storage import replace_file

Points = tuple[tuple[float, float], ...]

_BY_SCALE = re.compile(r"(?P<name>.+)_scale_(?P<scale>\d+)")
_BY_REGION = re.compile(r"(?P<name>psnr|ssim|feature_distance|loss)_(?!scale_)(?P<region>.+)")


def write_summary(out: Path, settings: Mapping[str, Any]) -> Path:
    """Write ``out/summary.html`` from the log and the samples of a run. Raises `OSError` when it cannot."""
    figures = read_log(out / "log.csv")
    stage, steps = str(settings["stage"]), int(max((x for points in figures.values() for x, _ in points), default=0))
    sections = [
        Section("learning", "Learning", _learning(figures)),
        Section("scales", "Scale by scale", _scales(figures)),
        Section("samples", "Pictures", _samples(out / "samples")),
        Section("speed", "Speed and memory", _speed(figures)),
        Section("settings", "Settings", table(("setting", "value"), [(k, _plain(v)) for k, v in settings.items()])),
    ]
    if any(map(_BY_REGION.fullmatch, figures)):
        sections.insert(1, Section("regions", "Region by region", _regions(figures)))
    lead = (
        f"{counted(steps, 'step')} of {number(int(settings['steps']))}. Held-out figures are of patients that were not "
        "trained on, by the averaged weights."
    )
    path = out / "summary.html"
    replace_file(
        path, document(f"Training of the {stage} in {out.resolve().name}", element("p", lead), sections).encode()
    )
    return path


def read_log(path: Path) -> dict[str, Points]:
    """The curves of ``log.csv``: the value of every figure at the steps where it was written down."""
    curves: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curves.setdefault(row["name"], []).append((float(row["step"]), float(row["value"])))
    return {name: tuple(points) for name, points in curves.items()}


def _learning(figures: Mapping[str, Points]) -> Markup:
    drawn = []
    together = [Curve(label, figures[name], label != "training") for label, name in
                (("training", "loss"), ("held out", "held_out_loss")) if name in figures]  # fmt: skip
    drawn.append(curves(together, "Loss", "step"))
    for name in ("held_out_psnr", "held_out_ssim", "held_out_feature_distance", "critic", "gradient_norm"):
        if name in figures:
            drawn.append(curves([Curve(name, figures[name], name.startswith("held"))], name.replace("_", " "), "step"))
    return element("div", *drawn, class_="charts")


def _scales(figures: Mapping[str, Points]) -> Markup:
    """The last value of every figure that has one a scale."""
    found: dict[str, dict[int, float]] = {}
    for name, points in figures.items():
        if match := _BY_SCALE.fullmatch(name):
            found.setdefault(match["name"], {})[int(match["scale"])] = points[-1][1]
    if not found:
        return element("p", "This stage has no figures of single scales.")
    scales = sorted({scale for values in found.values() for scale in values})
    rows: list[tuple[Child, ...]] = [
        (name.replace("_", " "), *(values.get(scale) for scale in scales)) for name, values in found.items()
    ]
    return table(("at the end", *(f"scale {scale}" for scale in scales)), rows)


def _regions(figures: Mapping[str, Points]) -> Markup:
    found: dict[str, dict[str, float]] = {}
    for name, points in figures.items():
        if match := _BY_REGION.fullmatch(name):
            found.setdefault(match["region"].replace("_", " "), {})[match["name"]] = points[-1][1]
    columns = sorted({name for values in found.values() for name in values})
    rows: list[tuple[Child, ...]] = [(region, *map(values.get, columns)) for region, values in sorted(found.items())]
    return table(("held out", *(name.replace("_", " ") for name in columns)), rows)


def _samples(folder: Path) -> Markup:
    """The first grid and the last."""
    steps = sorted(path for path in folder.glob("step-*") if path.is_dir())
    shown: list[Markup] = []
    for step in dict.fromkeys([*steps[:1], *steps[-1:]]):
        shown += [
            join(element("h3", f"{path.stem}, {step.name.replace('-', ' ')}"), png(path.read_bytes(), path.stem))
            for path in sorted(step.glob("*.png"))
        ]
    return join(*shown) if shown else element("p", "No pictures were made.")


def _speed(figures: Mapping[str, Points]) -> Markup:
    drawn = [
        curves([Curve(name, figures[name])], title, "step")
        for name, title in (("images_per_second", "Images a second"), ("memory_gb", "Most memory so far, GiB"))
        if name in figures
    ]
    return element("div", *drawn, class_="charts")


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else "–" if value is None else str(value)
