"""What the figures are said to mean."""

from __future__ import annotations

import pytest

from medvar_engine.evaluate.evaluation import ByEncoder, Evaluation
from medvar_engine.evaluate.metrics.metric_table import MetricValue
from medvar_engine.evaluate.report.findings import Sentence, findings

BASELINES = {"real, other people": 2.0, "real, blurred": 5.0, "four real images, repeated": 6.0, "noise": 9.0}


def said(ours: float, **baselines: float) -> list[Sentence]:
    """The verdict on images at this distance."""
    values = {"synthetic": ours, **BASELINES, **baselines}
    rows = {name: {"frechet": MetricValue(value)} for name, value in values.items()}
    return findings(Evaluation("m", (), "", {}, [ByEncoder({"name": "one"}, rows, {}, None)], {}, None))


@pytest.mark.parametrize(
    ("ours", "title", "grave"),
    [
        (1.0, "one rates them close to the training slices", False),
        (3.0, "one hardly distinguishes them from slices of other patients", False),
        (4.5, "one distinguishes them from real slices", True),
        (5.5, "one rates them worse than blurred slices", True),
    ],
)
def test_a_distance_is_compared_with_the_baselines(ours: float, title: str, grave: bool) -> None:
    """Images worse than blurred slices would be praised, or good ones be warned of."""
    assert (title, grave) in [(one.title, one.grave) for one in said(ours)]


def test_an_encoder_that_ranks_baselines_wrongly_gives_a_warning() -> None:
    """One page would say that a figure means little and, below, what it means."""
    titles = [one.title for one in said(1.0, **{"real, blurred": 1.5})]
    assert "The metrics contradict the baselines" in titles
    assert not any(title.startswith("one ") for title in titles)
