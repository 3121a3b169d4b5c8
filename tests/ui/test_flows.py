"""All that the pages tell of, done in a real window with the shipped model, in both themes, narrow and wide.

What every step looks like is kept in the folder that the variable MEDVAR_SCREENSHOTS names. The machine that runs all
tests keeps it, so that somebody can look at it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QLabel, QWidget

SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots.py"
_SLACK = 2  # px
_ARROW = 24  # px of a list


def cut_texts(shown: QWidget) -> Iterator[str]:
    """Texts in the window that are wider than their place, but for those that are meant to be."""
    for widget in shown.findChildren(QWidget):
        if not widget.isVisible():
            continue
        text = getattr(widget, "text", getattr(widget, "currentText", str))() if _has_text(widget) else ""
        if not text:
            continue
        metrics = widget.fontMetrics()
        needed = metrics.size(Qt.TextFlag.TextShowMnemonic, text).width()
        if isinstance(widget, QComboBox):
            needed += _ARROW
        wraps = isinstance(widget, QLabel) and widget.wordWrap()
        if not wraps and needed > widget.width() + _SLACK:
            yield f"“{text}” needs {needed} px and has {widget.width()}"


def _has_text(widget: QWidget) -> bool:
    elides = type(widget).__name__ == "QElidingLabel"  # a path, whose middle is left out
    return isinstance(widget, QAbstractButton | QLabel | QComboBox) and not elides


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where images of this test go."""
    kept = os.environ.get("MEDVAR_SCREENSHOTS")
    scale = os.environ.get("QT_SCALE_FACTOR", "1")
    folder = Path(kept) / f"{request.node.callspec.id}-{scale}x" if kept else tmp_path / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("theme", "width"), [("dark", 300), ("light", 600), ("light", 300), ("dark", 600)])
def test_everything_can_be_done_and_no_text_is_cut(own_viewer: Any, folder: Path, theme: str, width: int) -> None:
    """A step that the pages tell of would not work; or a button would say “Re… from sc…” in a narrow dock."""
    pages = run_path(str(SCREENSHOTS))
    own_viewer.theme = theme
    cut: list[str] = []
    studio = pages["Studio"](folder, viewer=own_viewer, dock=width, seen=lambda shown: cut.extend(cut_texts(shown)))
    assert studio.dock.width() == width  # a wider minimum would push the canvas aside
    for scene in pages["SCENES"]:
        scene(studio)
        area = studio.widget.area
        assert area.widget().width() <= area.viewport().width()  # or its right side would be cut off
        assert not studio.widget.message.isVisible(), studio.widget.message.text.text()
    names = {path.stem for path in folder.iterdir()}
    assert {"plugin-start", "plugin-edit", "plugin-tokens", "plugin-gallery", "plugin-real", "plugin-guide"} <= names
    assert not cut, "\n".join(dict.fromkeys(cut))
    studio.widget.worker.close()
    QApplication.processEvents()
