"""The rows of a table of texture: for each label that of synthetic images, then that of training slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medvar_engine.evaluate.report.measures import TRAINING

EXPECTED = "Held-out slices are of few patients: how far training slices are from them shows what can be expected."
"""Explains the rows of training slices."""


def texture_rows(texture: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and texture of each row, from the JSON of an evaluation; those of earlier versions have no training rows."""
    for label, synthetic in texture.items():
        yield f"{label}, compared with training slices" if synthetic.get("against") == TRAINING else label, synthetic
        if (training := synthetic.get("training")) is not None:
            yield f"{label}, training slices", training
