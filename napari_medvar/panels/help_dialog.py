"""`HelpDialog`: the guide, the keys, the version, and the card of the model."""

from __future__ import annotations

from html import escape

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QDialog, QDialogButtonBox, QLabel, QTabWidget, QTextBrowser, QVBoxLayout, QWidget

import medvar_engine
from medvar_engine.errors import MedvarError
from napari_medvar import guide, keys
from napari_medvar.session.opened_bundle import OpenedBundle

_IN_PANEL = {
    "Undo, redo": "Ctrl+Z, Ctrl+Shift+Z",
    "Stop after the current scale": "Esc",
    "Resample": "Ctrl+R",
    "A button": "Alt and its underlined letter",
    "This help": "?",
}
_SIZE = 520, 560


class HelpDialog(QDialog):
    """Tabs for the guide, the keys, the version and the model card.

    Opens ``page`` of the guide, or the keys without one.
    """

    def __init__(self, opened: OpenedBundle | None, parent: QWidget | None = None, page: str = "") -> None:
        super().__init__(parent)
        self.setWindowTitle("MedVAR Generate")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(*_SIZE)
        self.tabs = QTabWidget()
        self.guide = GuidePages(page)
        self.tabs.addTab(self.guide, "Guide")
        self.tabs.addTab(_page(_keys()), "Keys")
        self.tabs.addTab(_page(_about(opened)), "About")
        if opened is not None:
            card = QTextBrowser()
            card.setMarkdown(_card(opened))
            self.tabs.addTab(card, "Model card")
        self.tabs.setCurrentIndex(0 if page else 1)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(self.tabs)
        layout.addWidget(QLabel("Synthetic images, for research. Not for diagnosis."))
        layout.addWidget(buttons)


class GuidePages(QWidget):
    """One page of the guide and a list of all pages."""

    def __init__(self, page: str = "") -> None:
        super().__init__()
        self.list = QComboBox()
        for name, title in guide.PAGES.items():
            self.list.addItem(title, name)
        self.text = QTextBrowser()
        self.text.setSearchPaths([str(guide.FOLDER)])
        self.list.currentIndexChanged.connect(self._show)
        self.list.setAccessibleName("Page of the guide")
        layout = QVBoxLayout(self)
        layout.addWidget(self.list)
        layout.addWidget(self.text)
        self.list.setCurrentIndex(max(0, self.list.findData(page)))
        self._show()

    def _show(self) -> None:
        self.text.setMarkdown(guide.page(self.list.currentData()))


def _page(html: str) -> QTextBrowser:
    page = QTextBrowser()
    page.setHtml(html)
    return page


def _keys() -> str:
    texts = keys.texts()
    everywhere = {key.text: texts[key.action] or "none" for key in keys.KEYS}
    return (
        f"<p>In the whole window (other keys: <i>Preferences › Shortcuts</i>):</p>{_table(everywhere)}"
        f"<p>In the panel:</p>{_table(_IN_PANEL)}"
    )


def _about(opened: OpenedBundle | None) -> str:
    facts = {"napari-medvar": medvar_engine.__version__, "Licence of the program": "MIT"}
    if opened is not None:
        bundle, info = opened.bundle, opened.generator.backend.info
        facts |= {
            "Model": bundle.name,
            "Trained on": bundle.training_data,
            "Licence of the model": bundle.licence,
            "Runs on": info.runs_on,
            "sha256": info.bundle_id,
        }
    return _table(facts)


def _card(opened: OpenedBundle) -> str:
    try:
        return opened.bundle.card
    except MedvarError as error:
        return str(error)


def _table(rows: dict[str, str]) -> str:
    cells = "".join(
        f"<tr><td>{escape(name)}&nbsp;&nbsp;</td><td>{escape(text)}</td></tr>" for name, text in rows.items()
    )
    return f"<table>{cells}</table>"
