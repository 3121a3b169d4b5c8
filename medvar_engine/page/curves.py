"""Curves as inline SVG, with the colours of the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medvar_engine.page.elements import Markup, element

_WIDTH, _HEIGHT, _LEFT, _FOOT = 420, 190, 56, 34
_COLOURS = 6  # classes curve-0 … in style.css


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve with points from left to right; points that are not finite are left out."""

    label: str
    points: tuple[tuple[float, float], ...]
    marked: bool = False  # whether to draw a dot at every point


def curves(drawn: Sequence[Curve], description: str, across: str, *, log_across: bool = False) -> Markup:
    """Curves with a legend below, over an axis labelled ``across``; a note if there is nothing to draw."""
    kept = [Curve(one.label, tuple(p for p in one.points if all(map(math.isfinite, p))), one.marked) for one in drawn]
    points = [point for one in kept for point in one.points]
    if not points:
        return element("p", f"{description}: no values.", class_="quiet")
    place = math.log10 if log_across else float
    lows, highs = zip(*((min(v), max(v)) for v in zip(*((place(x), y) for x, y in points), strict=True)), strict=True)

    def at(x: float, y: float) -> tuple[float, float]:
        right, up = (
            (value - low) / (high - low) if high > low else 0.5
            for value, low, high in zip((place(x), y), lows, highs, strict=True)
        )
        return _LEFT + right * (_WIDTH - _LEFT - 8), _HEIGHT - 6 - up * (_HEIGHT - 16)

    parts = [
        element("line", x1=_LEFT, y1=_HEIGHT, x2=_WIDTH, y2=_HEIGHT, class_="axis"),
        element("line", x1=_LEFT, y1=4, x2=_LEFT, y2=_HEIGHT, class_="axis"),
        element("text", _short(highs[1]), x=_LEFT - 6, y=14, text_anchor="end"),
        element("text", _short(lows[1]), x=_LEFT - 6, y=_HEIGHT - 4, text_anchor="end"),
        element("text", _short(min(x for x, _ in points)), x=_LEFT, y=_HEIGHT + 16),
        element("text", across, x=(_WIDTH + _LEFT) / 2, y=_HEIGHT + 16, text_anchor="middle"),
        element("text", _short(max(x for x, _ in points)), x=_WIDTH, y=_HEIGHT + 16, text_anchor="end"),
    ]
    for i, one in enumerate(kept):
        colour, places = f"curve-{i % _COLOURS}", [at(x, y) for x, y in one.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(element("polyline", element("title", one.label), points=line, class_=f"curve {colour}"))
        if one.marked:
            for (x, y), (across_at, value) in zip(places, one.points, strict=True):
                tooltip = element("title", f"{one.label}: {_short(value)} at {_short(across_at)}")
                parts.append(element("circle", tooltip, cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_=f"dot {colour}"))
    keys = [
        element("span", element("span", "", class_=f"key {f'curve-{i % _COLOURS}'}"), one.label, class_="label")
        for i, one in enumerate(kept)
    ]
    svg = element(
        "svg",
        element("title", description),
        *parts,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT + _FOOT - 12}",
        role="img",
        class_="chart",
    )
    return element("figure", svg, element("figcaption", f"{description}. ", *(keys if len(keys) > 1 else ())))


def _short(value: float) -> str:
    return f"{value:.4g}"
