"""What of the picture is shown: the picture, all its scales, or a map over it."""

from __future__ import annotations

from typing import Literal, get_args

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QLabel, QWidget

from napari_medvar.panels.form_rows import add_row, calm, plain_form, quiet

View = Literal["picture", "scales", "difference", "tokens", "entropy", "likelihood", "anomaly"]
VIEWS: tuple[View, ...] = get_args(View)
_TEXTS: dict[View, tuple[str, str]] = {
    "picture": ("Image", "The image as it was after the scale of the slider."),
    "scales": ("All scales", "Every scale in a cell of its own, coarse to fine."),
    "difference": (
        "Added by this scale",
        "The difference to the scale before: green is brighter now, pink darker.",
    ),
    "tokens": ("Token map", "One colour a token. The value under the cursor is the token's number in the codebook."),
    "entropy": (
        "Undecided places",
        "The entropy of each token, in bits. Bright: another seed would give something else here.",
    ),
    "likelihood": (
        "Unlikely places",
        "How little the model expected what is there: its negative log-likelihood in bits. Bright: unexpected.",
    ),
    "anomaly": ("Anomaly map", "Where a real image differs from what the model expects. Bright: unexpected."),
}


class ViewPanel(QWidget):
    """A chooser of views, and a line on what colours mean."""

    known = VIEWS

    chosen = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.combo = QComboBox()
        for view in VIEWS:
            text, tip = _TEXTS[view]
            self.combo.addItem(text, view)
            self.combo.setItemData(self.combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.combo.currentIndexChanged.connect(self._changed)
        self.note = quiet(QLabel())
        form = plain_form(self)
        add_row(
            form, "V&iew", calm(self.combo), "What is shown of the image; its layers are made when first asked for."
        )
        form.addRow(self.note)
        self.note.hide()

    @property
    def view(self) -> View:
        """The chosen one."""
        return self.combo.currentData()  # type: ignore[no-any-return]

    def show_view(self, view: View) -> None:
        """Choose one."""
        self.combo.setCurrentIndex(VIEWS.index(view))

    def explain(self, text: str = "") -> None:
        """Say what the colours mean, or why there is nothing to see."""
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def _changed(self) -> None:
        self.combo.setToolTip(f"<p>{_TEXTS[self.view][1]}</p>")
        self.chosen.emit()
