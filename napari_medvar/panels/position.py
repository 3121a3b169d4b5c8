"""`PositionChooser`: a slider for the slice's position along the scan, and a box that leaves it to the model."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QWidget
from superqt import QLabeledDoubleSlider

from napari_medvar.panels.form_rows import plain_column, small_text, without_wheel

_GAP = 6  # px between the box and the slider
_ENDS = {"axial": ("feet", "head"), "coronal": ("back", "front"), "sagittal": ("patient's left", "right")}


class PositionChooser(QWidget):
    """A position from 0 to 1, or None while the box is checked; below it, what both ends of the slider mean.

    ``without`` and ``tip`` are the text of the box, and what it means.
    """

    changed = Signal()

    def __init__(self, without: str = "any", tip: str = "Leave the position to the model.") -> None:
        super().__init__()
        self.any_box = QCheckBox(without)
        self.any_box.setToolTip(f"<p>{tip}</p>")
        self.any_box.setChecked(True)
        self.slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, 1)
        self.slider.setSingleStep(0.05)  # type: ignore[arg-type]  # superqt's annotation is for integers
        self.slider.setDecimals(2)
        self.slider.setValue(0.5)  # type: ignore[arg-type]
        without_wheel(self.slider)
        self.hint = small_text(QLabel())
        row = QHBoxLayout()
        row.setSpacing(_GAP)
        row.addWidget(self.any_box)
        row.addWidget(self.slider)
        layout = plain_column(self)
        layout.setSpacing(0)
        layout.addLayout(row)
        layout.addWidget(self.hint)
        self.hint.hide()
        self.setFocusProxy(self.any_box)
        self.any_box.toggled.connect(self._toggled)
        self.slider.valueChanged.connect(self.changed)
        self.slider.setEnabled(False)

    @property
    def value(self) -> float | None:
        """The chosen position, or None."""
        return None if self.any_box.isChecked() else round(float(self.slider.value()), 2)

    def show_plane(self, plane: str | None) -> None:
        """Say what 0 and 1 mean in slices of this plane; nothing for another plane or while the box is checked."""
        low, high = _ENDS.get(plane or "", ("", ""))
        self.hint.setText(f"0: {low} · 1: {high}")
        self.hint.setVisible(bool(low) and not self.any_box.isChecked())

    def show_value(self, position: float | None) -> None:
        """Show a position without emitting a signal."""
        with QSignalBlocker(self.any_box), QSignalBlocker(self.slider):
            self.any_box.setChecked(position is None)
            if position is not None:
                self.slider.setValue(position)  # type: ignore[arg-type]
        self.slider.setEnabled(position is not None)

    def _toggled(self, leave_open: bool) -> None:
        self.slider.setEnabled(not leave_open)
        self.changed.emit()
