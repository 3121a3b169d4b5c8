"""A summary of a run as one HTML page: metrics, speed and sample images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvar_engine.metric_log import LOG, Metric, Points, read_log
from medvar_engine.page.curves import Curve, curves
from medvar_engine.page.document import Section, document
from medvar_engine.page.elements import Child, Markup, counted, element, join, number, png, table
from medvar_engine.storage import replace_file
from medvar_engine.train.progress import MEMORY, SPEED

_HELD_OUT = ("psnr", "ssim", "feature_distance")
_WHILE_LEARNING = ("critic", "gradient_norm")


def write_summary(out: Path, settings: Mapping[str, Any]) -> Path:
    """Write ``out/summary.html`` from the log and the samples of a run. Raises `OSError` when it cannot."""
    metrics = read_log(out / LOG)
    stage, steps = str(settings["stage"]), int(max((x for points in metrics.values() for x, _ in points), default=0))
    sections = [
        Section("learning", "Learning", _learning(metrics)),
        Section("scales", "Scale by scale", _scales(metrics)),
        Section("samples", "Images", _samples(out / "samples")),
        Section("speed", "Speed and memory", _speed(metrics)),
        Section("settings", "Settings", table(("setting", "value"), [(k, _plain(v)) for k, v in settings.items()])),
    ]
    if any(metric.region for metric in metrics):
        sections.insert(1, Section("regions", "Region by region", _regions(metrics)))
    lead = (
        f"{counted(steps, 'step')} of {number(int(settings['steps']))}. Held-out metrics are measured with the "
        "averaged weights on patients that were not used for training."
    )
    path = out / "summary.html"
    replace_file(
        path, document(f"Training of the {stage} in {out.resolve().name}", element("p", lead), sections).encode()
    )
    return path


def _learning(metrics: Mapping[Metric, Points]) -> Markup:
    losses = {"training": Metric("loss"), "held out": Metric("loss", "held_out")}
    together = [Curve(label, metrics[one], label != "training") for label, one in losses.items() if one in metrics]
    drawn = [curves(together, "Loss", "step")]
    for one in (*(Metric(name, "held_out") for name in _HELD_OUT), *map(Metric, _WHILE_LEARNING)):
        if one in metrics:
            drawn.append(curves([Curve(str(one), metrics[one], one.split == "held_out")], str(one), "step"))
    return element("div", *drawn, class_="charts")


def _scales(metrics: Mapping[Metric, Points]) -> Markup:
    """A table of the last value of every metric that is measured per scale."""
    found: dict[str, dict[int, float]] = {}
    for metric, points in metrics.items():
        if metric.scale is not None:
            found.setdefault(str(metric._replace(scale=None)), {})[metric.scale] = points[-1][1]
    if not found:
        return element("p", "This stage has no metrics per scale.")
    scales = sorted({scale for values in found.values() for scale in values})
    rows: list[tuple[Child, ...]] = [(name, *(values.get(scale) for scale in scales)) for name, values in found.items()]
    return table(("at the end", *(f"scale {scale}" for scale in scales)), rows)


def _regions(metrics: Mapping[Metric, Points]) -> Markup:
    found: dict[str, dict[str, float]] = {}
    for metric, points in metrics.items():
        if metric.region:
            found.setdefault(metric.region, {})[metric.name] = points[-1][1]
    columns = sorted({name for values in found.values() for name in values})
    rows: list[tuple[Child, ...]] = [(region, *map(values.get, columns)) for region, values in sorted(found.items())]
    return table(("held out", *(name.replace("_", " ") for name in columns)), rows)


def _samples(folder: Path) -> Markup:
    """The first and the last sample grid."""
    steps = sorted(path for path in folder.glob("step-*") if path.is_dir())
    shown: list[Markup] = []
    for step in dict.fromkeys([*steps[:1], *steps[-1:]]):
        shown += [
            join(element("h3", f"{path.stem}, {step.name.replace('-', ' ')}"), png(path.read_bytes(), path.stem))
            for path in sorted(step.glob("*.png"))
        ]
    return join(*shown) if shown else element("p", "There are no sample images.")


def _speed(metrics: Mapping[Metric, Points]) -> Markup:
    drawn = [
        curves([Curve(str(metric), metrics[metric])], title, "step")
        for metric, title in ((SPEED, "Images per second"), (MEMORY, "Peak memory, GiB"))
        if metric in metrics
    ]
    return element("div", *drawn, class_="charts")


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else "–" if value is None else str(value)
