"""What is asked for: modality, region, plane. The names are the bundle's own."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QLabel, QVBoxLayout, QWidget
from superqt import QSearchableComboBox

from medvar_engine.bundle import Bundle, Cell
from medvar_engine.conditions import FACTORS, Condition
from napari_medvar.panels.common import add_row, calm, plain_form, quiet

ANY = "any"
_TIPS = {
    "modality": "How the slice looks acquired: CT, or a kind of MR. “any” leaves it to the model.",
    "region": "The part of the body. Type to search. “any” leaves it to the model.",
    "plane": "The direction of the cut. “any” leaves it to the model.",
    "dataset": "In the style of one training data set. “any” leaves it to the model.",
}


class ConditionPanel(QWidget):
    """One searchable list per factor that the model is conditioned on."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._bundle: Bundle | None = None
        self.combos: dict[str, QComboBox] = {}
        fields = QWidget()
        self._form = plain_form(fields)
        for factor in FACTORS:
            combo = QSearchableComboBox()
            combo.setMinimumContentsLength(8)
            combo.currentIndexChanged.connect(self._changed)
            if (editor := combo.lineEdit()) is not None:
                # Text that names nothing must not stay there and look as if it were asked for.
                editor.editingFinished.connect(
                    lambda combo=combo: combo.setEditText(combo.itemText(combo.currentIndex()))
                )
            self.combos[factor] = combo
            add_row(self._form, factor.capitalize(), calm(combo), _TIPS[factor])
        self.note = quiet(QLabel())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(fields)
        layout.addWidget(self.note)
        self.note.hide()
        self._show_factors(())

    @property
    def condition(self) -> Condition:
        """What is asked for."""
        return Condition.from_dict({factor: combo.currentData() for factor, combo in self.combos.items()})

    def offer(self, bundle: Bundle) -> None:
        """Offer a bundle's labels, and begin with the kind of slice that it knows best."""
        self._bundle = bundle
        for factor, combo in self.combos.items():
            combo.blockSignals(True)
            combo.clear()
            combo.addItem(ANY, None)
            for name in getattr(bundle.labels, factor):
                combo.addItem(name, name)
            combo.blockSignals(False)
        self._show_factors(bundle.labels.factors)
        best = max(bundle.cells, key=lambda cell: cell.slices, default=None)
        self.show_condition(best.condition if best else Condition())

    def show_condition(self, condition: Condition) -> None:
        """Ask for ``condition``; what the bundle has no name for becomes “any”."""
        for factor, combo in self.combos.items():
            combo.setCurrentIndex(max(0, combo.findData(getattr(condition, factor))))
        self._changed()

    def _show_factors(self, factors: tuple[str, ...]) -> None:
        for factor, combo in self.combos.items():
            self._form.setRowVisible(combo, factor in factors)

    def _changed(self) -> None:
        if self._bundle is not None:
            self.note.show()
            self.note.setText(_what_is_known(self._bundle.cell(self.condition), self.condition))
        self.changed.emit()


def _what_is_known(cell: Cell | None, condition: Condition) -> str:
    """What the training set says of a condition, for a user to judge what to expect."""
    if cell is None:
        return f"⚠ The model never saw “{condition}” in training: expect a wrong picture."
    patients = f"{cell.patients:,} patient{'s' * (cell.patients != 1)}"
    known = f"{cell.slices:,} training slices of {patients}"
    if cell.condition != condition:
        known = f"Most of it “{cell.condition}”: {known}"
    return f"{known}, {cell.spacing_mm:.2g} mm a pixel." if cell.spacing_mm else f"{known}, pixel size not known."
