"""Whether synthetic images help to train: metrics on held-out patients, and learning curves."""

from __future__ import annotations

from collections.abc import Sequence

from medvar_engine.evaluate.learning_curve import BOTH, REAL, SYNTHETIC, CurvePoint
from medvar_engine.evaluate.metrics.metric_table import MetricValue
from medvar_engine.evaluate.pairs.segmentation_utility import SegmentationUtility
from medvar_engine.evaluate.report.metric_cell import metric_cell
from medvar_engine.evaluate.utility import Utility
from medvar_engine.page.curves import Curve, curves
from medvar_engine.page.document import Section, document
from medvar_engine.page.elements import Child, Markup, counted, element, join, table


def utility_page(found: Utility | SegmentationUtility, name: str) -> Markup:
    """The section as a page of its own."""
    lead = element("p", f"Networks were trained on real slices, on {name}, and on both.")
    return document(f"Usefulness of {name}", lead, [Section("utility", "Usefulness", utility_section(found))])


def utility_section(found: Utility | SegmentationUtility) -> Markup:
    """A description of the networks, a table of the metric, and the learning curve."""
    if isinstance(found, SegmentationUtility):
        metric, text = "Dice", _segmentation(found)
    else:
        metric, text = "balanced accuracy", _classification(found)
    rows: list[tuple[Child, ...]] = [(name, metric_cell(metric)) for name, metric in found.metrics.items()]
    parts = [element("p", text, class_="quiet"), table(("training images", metric), rows)]
    if found.curve:
        parts.append(_curve(found.curve, found.metrics[SYNTHETIC], metric))
    return join(*parts)


def _classification(found: Utility) -> str:
    return (
        f"Small classifiers of {', '.join(found.classes)} ({found.task}) were trained on these images, each in "
        f"{counted(found.steps, 'step')}, and tested on slices of held-out patients. Every class has equal weight; "
        f"{1 / len(found.classes):.3g} is chance. Values are means of {counted(found.seeds, 'classifier')}."
    )


def _segmentation(found: SegmentationUtility) -> str:
    return (
        f"Small U-Nets were trained to segment {', '.join(found.structures)}, each in {counted(found.steps, 'step')}, "
        "and tested on held-out patients. The value is the Dice of each structure of a patient, averaged over "
        f"structures and patients. Values are means of {counted(found.seeds, 'U-Net')}."
    )


def _curve(points: Sequence[CurvePoint], alone: MetricValue, metric: str) -> Markup:
    ends = points[0].patients, points[-1].patients
    drawn = [
        Curve(name, tuple((float(p.patients), _value(p.metrics[name])) for p in points), marked=True)
        for name in (REAL, BOTH)
    ]
    drawn.append(Curve(f"{SYNTHETIC} alone", tuple((float(end), _value(alone)) for end in sorted(set(ends)))))
    chart = curves(drawn, f"{metric} by training patients", "training patients", log_across=True)
    rows: list[tuple[Child, ...]] = [
        (str(one.patients), metric_cell(one.metrics[REAL]), metric_cell(one.metrics[BOTH])) for one in points
    ]
    note = (
        "The model of the synthetic images was trained on all training patients, however few of them these networks "
        "saw. To see what it adds to few patients, train it on these alone."
    )
    return join(
        element("div", chart, class_="charts"),
        table(("training patients", REAL, BOTH), rows),
        element("p", note, class_="quiet"),
    )


def _value(metric: MetricValue) -> float:
    return float("nan") if metric.value is None else metric.value
