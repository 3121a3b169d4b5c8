"""A whole HTML page with title, table of contents, notes and sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from medvar_engine.page.elements import Markup, element, join

# No external resources and no scripts, whatever a name may contain.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page, with its title in the table of contents."""

    anchor: str
    title: str
    body: Markup


def note(title: str, text: str, *, grave: bool) -> Markup:
    """A note at the top of the page; a ``grave`` one is shown as a warning."""
    paragraphs = join(element("p", element("strong", title)), element("p", text))
    return element("div", paragraphs, class_="warning" if grave else "fine", role="note")


def document(title: str, lead: Markup, sections: Sequence[Section], notes: Sequence[Markup] = ()) -> Markup:
    """The page as one HTML file without external resources."""
    body = join(
        element("h1", title),
        lead,
        element("nav", *(element("a", one.title, href=f"#{one.anchor}") for one in sections)),
        *notes,
        *(element("section", element("h2", one.title), one.body, id=one.anchor) for one in sections),
    )
    style = Markup(files(__package__).joinpath("style.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )
    return join(Markup("<!doctype html>\n"), element("html", head, element("body", body), lang="en"), "\n")
