"""`CandidatesPanel`: several continuations of the current image to choose from."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSpinBox, QWidget

from medvar_engine.types import FloatArray
from napari_medvar.panels.form_rows import add_row, button, plain_column, plain_form, small_text, without_wheel
from napari_medvar.panels.thumbnails import Thumbnails


class CandidatesPanel(QWidget):
    """The number of candidates, their last scale, and their thumbnails."""

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
        self.sheet.setToolTip("<p>Move with the arrow keys; press Enter to continue with the selected candidate.</p>")
        self.sheet.picked.connect(self.pick)
        self.pick_button = button(
            "Continue with it", "Make the selected candidate the current image, and finish it.", self._pick
        )
        self.all_button = button(
            "Finish all", "Finish all candidates and add them to the history.", self.finish_all.emit
        )
        self.note = small_text(QLabel())
        fields = QWidget()
        form = plain_form(fields)
        add_row(
            form, "How many", without_wheel(self.count_box), "Number of candidates to draw, each with its own seed."
        )
        add_row(
            form,
            "Up to scale",
            without_wheel(self.until_box),
            "The scale at which you choose. A coarse scale is fast and shows the layout; the finest shows every "
            "detail.",
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
        """Offer the scales of a model; by default candidates are drawn up to the finest."""
        self.until_box.setRange(0, count - 1)
        self.until_box.setValue(count - 1)

    def show_scale(self, k: int) -> None:
        """Show that candidates are drawn from scale k."""
        self.draw_button.setText(f"Draw candidates from scale {k}")
        kept = f"Scales 0 to {k - 1} are kept" if k else "No scale of the image is kept"
        self.draw_button.setToolTip(
            f"<p>{kept}; all others are drawn several times. You may stop and choose early.</p>"
        )

    def show_candidates(self, images: FloatArray, k: int) -> None:
        """Show the previews of scale k of all candidates, ``(N, H, W)`` or ``(N, H, W, 3)``."""
        self.sheet.show_images(list(images), [str(i + 1) for i in range(len(images))])
        self.sheet.show()
        self.note.setText(f"Previews of scale {k}.")
        self.note.show()

    def clear(self) -> None:
        """Show no candidates."""
        self.sheet.show_images([], [])
        self.sheet.hide()
        self.note.hide()

    def allow(self, *, has_image: bool, idle: bool) -> None:
        """Update which controls are enabled."""
        self.draw_button.setEnabled(has_image)
        some = idle and self.sheet.count() > 0
        self.sheet.setEnabled(some or not idle)
        self.pick_button.setEnabled(some)
        self.all_button.setEnabled(some)

    def _pick(self) -> None:
        self.pick.emit(self.sheet.currentRow())
