"""Charts as inline SVG with the colours of the page, so that they are readable in light and dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvar_engine.page.elements import Markup, element, number

Floats = NDArray[np.float64]

_WIDTH, _HEIGHT, _FOOT = 420, 150, 22


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a bar chart: the training part and the test part."""

    label: str
    train: int
    test: int


def bars(rows: Sequence[Bar], description: str) -> Markup:
    """Horizontal bars, training and test one after the other, with their sums."""
    most = max((row.train + row.test for row in rows), default=0) or 1
    height, left, right, width = 22, 200, 90, 760
    scale = (width - left - right) / most
    drawn = []
    for place, row in enumerate(rows):
        y, total = place * height, row.train + row.test
        drawn += [
            element("text", row.label, x=left - 10, y=y + 15, text_anchor="end"),
            element("rect", x=left, y=y + 4, width=f"{row.train * scale:.1f}", height=height - 8, class_="train"),
            element(
                "rect",
                x=f"{left + row.train * scale:.1f}",
                y=y + 4,
                width=f"{row.test * scale:.1f}",
                height=height - 8,
                class_="test",
            ),
            element("text", number(total), x=f"{left + total * scale + 8:.1f}", y=y + 15),
        ]
    return _svg(width, len(rows) * height, description, *drawn)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line of a histogram: the shares (N,) of N equal bins."""

    label: str
    shares: Floats


def lines(
    bounds: tuple[float, float],
    drawn: Sequence[Line],
    description: str,
    unit: str = "",
    window: tuple[float, float] | None = None,
) -> Markup:
    """Thin lines over an axis between two bounds, their heights the square roots of the shares.

    ``window`` marks a part of the axis. Each line says its label when pointed at.
    """
    most = max((float(line.shares.max()) for line in drawn), default=0.0) or 1.0
    low, high = bounds
    parts = []
    if window is not None:
        start, end = (float(np.clip((value - low) / (high - low), 0, 1)) * _WIDTH for value in window)
        parts.append(
            element("rect", x=f"{start:.1f}", y=0, width=f"{end - start:.1f}", height=_HEIGHT, class_="window")
        )
    for line in drawn:
        across = (np.arange(len(line.shares)) + 0.5) / len(line.shares) * _WIDTH
        down = _HEIGHT - np.sqrt(line.shares / most) * (_HEIGHT - 6)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
        parts.append(element("polyline", element("title", line.label), points=points, class_="line"))
    parts.append(element("line", x1=0, y1=_HEIGHT, x2=_WIDTH, y2=_HEIGHT, class_="axis"))
    for value, anchor, x in ((low, "start", 0.0), ((low + high) / 2, "middle", _WIDTH / 2), (high, "end", _WIDTH)):
        label = f"{value:.4g} {unit}" if anchor == "end" else f"{value:.4g}"
        parts.append(element("text", label.strip(), x=x, y=_HEIGHT + 16, text_anchor=anchor))
    return _svg(_WIDTH, _HEIGHT + _FOOT, description, *parts)


def _svg(width: float, height: float, description: str, *parts: Markup) -> Markup:
    return element(
        "svg", element("title", description), *parts, viewBox=f"0 0 {width} {height}", role="img", class_="chart"
    )
