"""`Metric`: a measured number of quality; and `MetricLog`, the log of a training run as a CSV file in long form."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from medvar_engine.errors import MedvarError
from medvar_engine.storage import replace_file

LOG = "log.csv"
COLUMNS = ("step", "split", "metric", "scale", "region", "value")

Split = Literal["train", "held_out"]
"""The slices that are measured: those used for training, or those of held-out patients."""


class Metric(NamedTuple):
    """What is measured: on all slices or one region, for the whole image or one scale."""

    name: str  # e.g. "psnr"
    split: Split = "train"
    scale: int | None = None
    region: str = ""  # modality and region, e.g. "CT chest"; empty for all

    def __str__(self) -> str:
        """The metric as text, e.g. ``held-out psnr, scale 3``."""
        name = self.name.replace("_", " ")
        words = [f"held-out {name}" if self.split == "held_out" else name, self.region]
        return ", ".join(filter(None, (*words, "" if self.scale is None else f"scale {self.scale}")))


Points = tuple[tuple[int, float], ...]
"""Training steps, and the value at each."""


class MetricLog:
    """Appends rows to ``log.csv``. A resumed run first removes rows that were written after its checkpoint."""

    def __init__(self, path: Path, start: int) -> None:
        """``start`` is the step at which the run begins."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept: list[tuple[int, Metric, float]] = []
        if start and path.is_file():
            with path.open(newline="", encoding="utf-8") as file, suppress(csv.Error):
                for row in csv.DictReader(file):
                    with suppress(KeyError, ValueError, TypeError):  # the last row of a killed run may be incomplete
                        if (found := _parsed(row))[0] <= start:
                            kept.append(found)
        replace_file(path, (_lines([COLUMNS]) + _lines(_row(*row) for row in kept)).encode())

    def write(self, step: int, metrics: Mapping[Metric, float]) -> None:
        """Add one row for each metric."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(_lines(_row(step, metric, value) for metric, value in metrics.items()))


def read_log(path: Path) -> dict[Metric, Points]:
    """Read a ``log.csv``, also of an earlier version: the steps and values of each metric.

    Raises `MedvarError` when the file cannot be read or is not such a log.
    """
    curves: dict[Metric, list[tuple[int, float]]] = {}
    for step, metric, value in _read(path):
        curves.setdefault(metric, []).append((step, value))
    return {metric: tuple(points) for metric, points in curves.items()}


def _read(path: Path) -> list[tuple[int, Metric, float]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [*map(_parsed, csv.DictReader(file))]
    except (OSError, csv.Error, KeyError, ValueError, TypeError) as error:
        raise MedvarError(f"{path} is not a training log ({', '.join(COLUMNS)}): {error}") from error


def _parsed(row: Mapping[str, str]) -> tuple[int, Metric, float]:
    return int(row["step"]), _metric(row), float(row["value"])


def _metric(row: Mapping[str, str]) -> Metric:
    if "name" in row:  # logs of earlier versions
        return _of_name(row["name"])
    split: Split = "held_out" if row["split"] == "held_out" else "train"
    return Metric(row["metric"], split, int(row["scale"]) if row["scale"] else None, row["region"])


def _row(step: int, metric: Metric, value: float) -> tuple[object, ...]:
    return step, metric.split, metric.name, metric.scale, metric.region, f"{value:.8g}"


def _lines(rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


_NAME = re.compile(r"(?P<held_out>held_out_)?(?P<name>.+?)(_scale_(?P<scale>\d+))?")
_OF_REGION = re.compile(r"(?P<name>psnr|ssim|feature_distance|detail|loss)_(?P<region>.+)")
_HELD_OUT = ("codes_used", "code_entropy")  # measured on held-out patients only


def _of_name(text: str) -> Metric:
    """Parse a metric that earlier versions wrote as one name: ``held_out_loss_scale_1``, ``psnr_CT_chest``."""
    found = _NAME.fullmatch(text)
    if found is None:
        raise ValueError(f"unknown metric {text!r}")
    name, scale = found["name"], None if found["scale"] is None else int(found["scale"])
    if not found["held_out"] and scale is None and (region := _OF_REGION.fullmatch(name)):
        return Metric(region["name"], "held_out", None, region["region"].replace("_", " "))
    return Metric(name, "held_out" if found["held_out"] or name in _HELD_OUT else "train", scale)
