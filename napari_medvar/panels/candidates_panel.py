"""Several continuations of the picture to choose from."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSpinBox, QWidget

from medvar_engine.types import FloatArray
from napari_medvar.panels.form_rows import add_row, button, calm, plain_column, plain_form, quiet
from napari_medvar.panels.thumbnails import Thumbnails


class CandidatesPanel(QWidget):
    """How many, up to which scale, and the contact sheet."""

    draw = Signal()
    pick = Signal(int)
    finish_all = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.count_box = QSpinBox()
        self.count_box.setRange(2, 32)
        self.count_box.setValue(6)
        self.until_box = QSpinBox()
        self.draw_button = button("Draw candidates", "", self.draw.emit)
        self.sheet = Thumbnails()
        self.sheet.setAccessibleName("Candidates")
        self.sheet.setToolTip("<p>Arrow keys move, Enter goes on with the selected one.</p>")
        self.sheet.picked.connect(self.pick)
        self.pick_button = button(
            "Go on with it", "Make the selected candidate the current image, and finish it.", self._pick
        )
        self.all_button = button("Finish all", "Finish all of them; each goes into the history.", self.finish_all.emit)
        self.note = quiet(QLabel())
        fields = QWidget()
        form = plain_form(fields)
        add_row(form, "How many", calm(self.count_box), "Continuations to draw, each with a seed of its own.")
        add_row(
            form,
            "Up to scale",
            calm(self.until_box),
            "How far they are made before you choose. Coarse is quick and shows the layout; the finest shows all.",
        )
        row = QHBoxLayout()
        row.addWidget(self.pick_button)
        row.addWidget(self.all_button)
        layout = plain_column(self)
        layout.addWidget(fields)
        layout.addWidget(self.draw_button)
        layout.addWidget(self.sheet)
        layout.addWidget(self.note)
        layout.addLayout(row)
        self.show_scale(0)
        self.clear()

    def offer_scales(self, count: int) -> None:
        """The scales of a model; candidates are finished unless asked otherwise."""
        self.until_box.setRange(0, count - 1)
        self.until_box.setValue(count - 1)

    def show_scale(self, k: int) -> None:
        """They begin at scale k."""
        self.draw_button.setText(f"Draw candidates from scale {k}")
        kept = f"Scales 0 to {k - 1} stay" if k else "Nothing of the image stays"
        self.draw_button.setToolTip(f"<p>{kept}; the rest is drawn several times. You may stop and choose early.</p>")

    def show_candidates(self, pictures: FloatArray, k: int) -> None:
        """As they are after scale k."""
        self.sheet.show_pictures(list(pictures), [str(i + 1) for i in range(len(pictures))])
        self.sheet.show()
        self.note.setText(f"As they are after scale {k}.")
        self.note.show()

    def clear(self) -> None:
        """There are none."""
        self.sheet.show_pictures([], [])
        self.sheet.hide()
        self.note.hide()

    def allow(self, *, picture: bool, idle: bool) -> None:
        """Enable what can be done now."""
        self.draw_button.setEnabled(picture)
        some = idle and self.sheet.count() > 0
        self.sheet.setEnabled(some or not idle)
        self.pick_button.setEnabled(some)
        self.all_button.setEnabled(some)

    def _pick(self) -> None:
        self.pick.emit(self.sheet.currentRow())
