"""HTML and SVG as values that cannot be anything else: text is escaped unless it was made here."""

from __future__ import annotations

import base64
import html
import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_VOID = frozenset({"br", "img", "line", "meta", "rect"})
# Control characters, and those that turn the direction of writing: a name must not reorder what stands beside it.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already. Only `element`, `join` and constants of this room make it."""

    __slots__ = ()


Child = Markup | str | float | None


def escape(value: str | float) -> str:
    """A value as text that is nothing but text, in an element or in a quoted attribute."""
    return html.escape(visible(str(value)))


def visible(text: str) -> str:
    """With a mark in place of every character that would change how the others are shown."""
    return _UNSEEN.sub("\ufffd", text)


def join(*children: Child) -> Markup:
    """Children one after the other: markup as it is, all else escaped, None left out."""
    return Markup("".join(one if isinstance(one, Markup) else escape(one) for one in children if one is not None))


def element(tag: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """``<tag attributes>children</tag>``; an attribute that is None is left out, ``class_`` is ``class``.

    >>> element("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{given}/>" if tag in _VOID else f"<{tag}{given}>{join(*children)}</{tag}>")


def table(columns: tuple[str, ...], rows: list[tuple[Child, ...]]) -> Markup:
    """A table; numbers are set to the right, with a gap between thousands."""
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    body = (element("tr", *map(_cell, row)) for row in rows)
    return element("div", element("table", element("thead", head), element("tbody", *body)), class_="wide")


def _cell(value: Child) -> Markup:
    if isinstance(value, int):
        return element("td", number(value), class_="number")
    if isinstance(value, float):
        return element("td", f"{value:.4g}", class_="number")
    return element("td", "–" if value is None or value == "" else value)


def number(value: int) -> str:
    """``438905`` → ``438 905``."""
    return f"{value:,}".replace(",", "\u202f")


def counted(count: int, what: str) -> str:
    """``1 patient``, ``12 patients``."""
    return f"{number(count)} {what}{'' if count == 1 else 's'}"


def picture(gray: NDArray[np.uint8], side: int, title: str) -> Markup:
    """A slice ``(H, W)`` as a JPEG in the page, at most ``side`` pixels wide; ``title`` shows when pointed at."""
    image = Image.fromarray(gray)
    if image.width > side:
        image = image.resize((side, side), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return _image(file.getvalue(), "jpeg", width=side, height=side, alt=title, title=title)


def png(content: bytes, title: str) -> Markup:
    """A PNG in the page itself, as wide as there is room."""
    return _image(content, "png", alt=title, title=title, class_="sheet")


def _image(content: bytes, kind: str, **attributes: str | float) -> Markup:
    data = base64.b64encode(content).decode("ascii")
    return element("img", src=f"data:image/{kind};base64,{data}", loading="lazy", **attributes)
