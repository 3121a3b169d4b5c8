"""`StackPanel`: what a stack of slices of one body shall be."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QSpinBox, QWidget

from medvar_engine.request import MOST_SLICES
from medvar_engine.sets.stack import Stack
from napari_medvar.panels.form_rows import add_row, button, plain_column, plain_form, without_wheel
from napari_medvar.panels.position import PositionChooser

_FORMATS = {"nifti": "NIfTI, one volume", "dicom": "DICOM, one series"}


class StackPanel(QWidget):
    """Number, distance and last position of the slices, and the button that makes them."""

    generate = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.count_box = QSpinBox()
        self.count_box.setRange(2, MOST_SLICES)
        self.count_box.setValue(16)
        self.spacing_box = QDoubleSpinBox()
        self.spacing_box.setRange(0.1, 100)
        self.spacing_box.setSuffix(" mm")
        self.spacing_box.setValue(3)
        self.last = PositionChooser("as the first", "Draw all slices at the position of the first.")
        self.format_combo = QComboBox()
        for name, text in _FORMATS.items():
            self.format_combo.addItem(text, name)
        self.generate_button = button(
            "Generate the stack",
            "Draw slices of one body with the slice type, position and seed above, write them into the folder, and "
            "open them as a volume.",
            self.generate.emit,
        )
        fields = QWidget()
        self._form = plain_form(fields)
        add_row(self._form, "Slices", without_wheel(self.count_box), "The number of slices.")
        add_row(self._form, "Distance", without_wheel(self.spacing_box), "The distance between slices.")
        add_row(self._form, "To", self.last, "The position of the last slice. That of the first is set above.")
        add_row(self._form, "Format", without_wheel(self.format_combo), "The file format of the stack.")
        layout = plain_column(self)
        layout.addWidget(fields)
        layout.addWidget(self.generate_button)

    @property
    def stack(self) -> Stack:
        """The stack that the controls describe; their ranges allow no impossible one."""
        return Stack(self.count_box.value(), self.spacing_box.value(), self.last.value)

    @property
    def format(self) -> str:
        """The name of the file format: ``nifti`` or ``dicom``."""
        return str(self.format_combo.currentData())

    def offer(self, *, positions: bool) -> None:
        """Offer a last position only if the model knows positions."""
        self._form.setRowVisible(self.last, positions)
        if not positions:
            self.last.show_value(None)
