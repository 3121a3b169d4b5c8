"""A metric and its interval, in a cell of a table."""

from __future__ import annotations

from medvar_engine.evaluate.metrics.metric_table import MetricValue
from medvar_engine.page.elements import Markup, element, join


def metric_cell(metric: MetricValue, form: str = ".3g") -> Markup:
    """The value, with its interval and what was resampled below it, or the reason why there is none."""
    if metric.value is None:
        return element("span", "–", title=f"not computed: {metric.missing}")
    if metric.low is None or metric.high is None:
        interval = element("div", "no interval", title=metric.no_interval, class_="quiet")
    else:
        interval = element("div", f"{metric.low:{form}} to {metric.high:{form}}, {metric.over}", class_="quiet")
    return join(f"{metric.value:{form}}", interval)
