"""The guide to the widget, with one page for each section. The documentation uses the same pages."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
PAGES = {
    "generate": "Make an image",
    "sampling": "Sampling",
    "view": "Look closer",
    "edit": "Edit",
    "candidates": "Candidates",
    "gallery": "Gallery",
    "real": "Real image",
    "history": "History",
    "save": "Save",
    "device": "Device and server",
}


def page(name: str) -> str:
    """The Markdown text of a page. Its figures are in `FOLDER`."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")
