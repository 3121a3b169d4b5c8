"""HTML and SVG elements as a separate type: text is escaped unless these functions made it."""

from __future__ import annotations

import base64
import html
import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_VOID = frozenset({"br", "img", "line", "meta", "rect"})
# Control characters, and those that change the direction of writing: a name must not reorder the text beside it.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Markup(str):
    """Text that is HTML. It is created only by `element`, `join` and constants of this package."""

    __slots__ = ()


Child = Markup | str | float | None


def escape(value: str | float) -> str:
    """A value as escaped text, for an element or a quoted attribute."""
    return html.escape(visible(str(value)))


def visible(text: str) -> str:
    """The text with every control or direction character replaced by a visible mark."""
    return _UNSEEN.sub("\ufffd", text)


def join(*children: Child) -> Markup:
    """The children one after the other: markup unchanged, other values escaped, None left out."""
    return Markup("".join(one if isinstance(one, Markup) else escape(one) for one in children if one is not None))


def element(tag: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """``<tag attributes>children</tag>``. An attribute that is None is left out; ``class_`` stands for ``class``.

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
    """A table; numbers are right-aligned, with thin gaps between thousands."""
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


def jpeg(grey: NDArray[np.uint8], side: int, title: str) -> Markup:
    """A slice ``(H, W)`` as an embedded JPEG, at most ``side`` pixels wide; ``title`` is its tooltip."""
    image = Image.fromarray(grey)
    if image.width > side:
        image = image.resize((side, side), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return _image(file.getvalue(), "jpeg", width=side, height=side, alt=title, title=title)


def png(content: bytes, title: str) -> Markup:
    """An embedded PNG, at most as wide as the page; ``title`` is its tooltip."""
    return _image(content, "png", alt=title, title=title, class_="sheet")


def _image(content: bytes, kind: str, **attributes: str | float) -> Markup:
    data = base64.b64encode(content).decode("ascii")
    return element("img", src=f"data:image/{kind};base64,{data}", loading="lazy", **attributes)
