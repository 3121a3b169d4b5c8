"""`ViewPanel`: shows the image, all its scales, or a map over it."""

from __future__ import annotations

from typing import Literal, get_args

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QLabel, QWidget

from napari_medvar.panels.form_rows import add_row, plain_form, small_text, without_wheel

View = Literal["image", "scales", "difference", "tokens", "entropy", "likelihood", "anomaly"]
VIEWS: tuple[View, ...] = get_args(View)
_TEXTS: dict[View, tuple[str, str]] = {
    "image": ("Image", "The image after the scale of the slider."),
    "scales": ("All scales", "All scales side by side, from coarse to fine."),
    "difference": (
        "Added by this scale",
        "The difference from the scale before. Green: brighter. Pink: darker.",
    ),
    "tokens": (
        "Token map",
        "One colour for each token. The value under the cursor is the index of the token in the codebook.",
    ),
    "entropy": (
        "Undecided places",
        "The entropy of each token in bits. Bright: another seed would probably give something else here.",
    ),
    "likelihood": (
        "Unlikely places",
        "Surprise: the negative log-likelihood of each token in bits. Bright: the model did not expect this token.",
    ),
    "anomaly": (
        "Anomaly map",
        "Where an image differs from what the model expects. Bright: unexpected. For research only.",
    ),
}


class ViewPanel(QWidget):
    """A list of views, and a line that explains the colours."""

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
        self.note = small_text(QLabel())
        form = plain_form(self)
        add_row(
            form,
            "V&iew",
            without_wheel(self.combo),
            "What to show of the image. Layers of a view are created when it is first chosen.",
        )
        form.addRow(self.note)
        self.note.hide()

    @property
    def view(self) -> View:
        """The chosen view."""
        return self.combo.currentData()  # type: ignore[no-any-return]

    def show_view(self, view: View) -> None:
        """Show another view as chosen."""
        self.combo.setCurrentIndex(VIEWS.index(view))

    def explain(self, text: str = "") -> None:
        """Explain the colours, or why nothing is shown."""
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def _changed(self) -> None:
        self.combo.setToolTip(f"<p>{_TEXTS[self.view][1]}</p>")
        self.chosen.emit()
