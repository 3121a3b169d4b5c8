"""What is asked for: modality, region, plane, …, position. Only what the model was trained on is offered."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QLabel, QWidget
from superqt import QSearchableComboBox

from medvar_engine.bundle.read import Bundle, Cell
from medvar_engine.conditions import NAMED, Condition
from napari_medvar.panels.form_rows import add_row, calm, plain_column, plain_form, quiet
from napari_medvar.panels.position import PositionChooser

ANY = "any"
_TIPS = {
    "modality": "How the slice looks acquired: CT, or a kind of MR. “any” leaves it to the model.",
    "region": "The part of the body. Type to search. Only what the model knows in this modality is offered.",
    "plane": "The direction of the cut. “any” leaves it to the model.",
    "contrast": "How the slice was acquired, such as T1 or FLAIR. “any” leaves it to the model.",
    "dataset": "In the style of one training data set. “any” leaves it to the model.",
}
_POSITION_TIP = (
    "Where along the scan's axis the slice lies, from 0 to 1: from the feet to the head (axial), from back to front "
    "(coronal), from the patient's left to the right (sagittal). “any” leaves it to the model."
)


class ConditionPanel(QWidget):
    """One searchable list per factor that the model is conditioned on; each offers what fits those above it."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._bundle: Bundle | None = None
        self.combos: dict[str, QComboBox] = {}
        fields = QWidget()
        self._form = plain_form(fields)
        for factor in NAMED:
            combo = QSearchableComboBox()
            combo.currentIndexChanged.connect(lambda _, factor=factor: self._chosen(factor))
            if (editor := combo.lineEdit()) is not None:
                # Text that names nothing must not stay there and look as if it were asked for.
                editor.editingFinished.connect(
                    lambda combo=combo: combo.setEditText(combo.itemText(combo.currentIndex()))
                )
            self.combos[factor] = combo
            add_row(self._form, factor.capitalize(), calm(combo), _TIPS[factor])
        self.position = PositionChooser()
        self.position.changed.connect(self._changed)
        add_row(self._form, "Position", self.position, _POSITION_TIP)
        self.note = quiet(QLabel())
        layout = plain_column(self)
        layout.addWidget(fields)
        layout.addWidget(self.note)
        self.note.hide()
        self._show_factors(())

    @property
    def condition(self) -> Condition:
        """What is asked for."""
        names = {factor: combo.currentData() for factor, combo in self.combos.items()}
        return Condition.from_dict({**names, "position": self.position.value})

    def offer(self, bundle: Bundle) -> None:
        """Offer a bundle's labels, and begin with its default slice type, or the one with the most training slices."""
        self._bundle = bundle
        self._show_factors(bundle.labels.factors)
        best = max(bundle.cells, key=lambda cell: cell.slices, default=None)
        known = best.condition if best else Condition()
        self.show_condition(bundle.default_condition or known)

    def show_condition(self, condition: Condition) -> None:
        """Ask for ``condition``, though the model may never have seen it; a name that it lacks becomes “any”."""
        for i, factor in enumerate(NAMED):
            self._fill(factor, Condition(**{name: getattr(condition, name) for name in NAMED[: i + 1]}))
        known = self._bundle is not None and self._bundle.labels.position
        self.position.show_value(condition.position if known else None)
        self._changed()

    def _fill(self, factor: str, wanted: Condition) -> None:
        """Offer what goes with the factors of ``wanted`` before this one, and choose its own."""
        if self._bundle is None:
            return
        known, name = getattr(self._bundle.labels, factor), getattr(wanted, factor)
        before = Condition(**{**wanted.to_dict(), factor: None})
        seen = {getattr(cell.condition, factor) for cell in self._bundle.fitting(before)}
        combo = self.combos[factor]
        combo.blockSignals(True)
        combo.clear()
        combo.addItem(ANY, None)
        for label in known:
            if label in seen or label == name or not seen - {None}:
                combo.addItem(label, label)
        combo.setCurrentIndex(max(0, combo.findData(name)))
        combo.blockSignals(False)

    def _chosen(self, factor: str) -> None:
        """Lists below follow; what no longer fits there becomes what the model knows best."""
        asked = self.condition
        place = NAMED.index(factor)
        for i in range(place + 1, len(NAMED)):
            below = NAMED[i]
            upper = {name: getattr(asked, name) for name in NAMED[:i]}
            fits = self._bundle.fitting(Condition(**upper)) if self._bundle else ()
            names = [getattr(cell.condition, below) for cell in fits]
            name = getattr(asked, below)
            if name is not None and names and name not in names:
                name = names[0]
            asked = Condition(**{**asked.to_dict(), below: name})
            self._fill(below, Condition(**{**upper, below: name}))
        self._changed()

    def _show_factors(self, factors: tuple[str, ...]) -> None:
        for factor, combo in self.combos.items():
            self._form.setRowVisible(combo, factor in factors)
        self._form.setRowVisible(self.position, "position" in factors)

    def _changed(self) -> None:
        if self._bundle is not None:
            self.note.show()
            self.note.setText(_what_is_known(self._bundle.cell(self.condition), self.condition))
        self.changed.emit()


def _what_is_known(cell: Cell | None, condition: Condition) -> str:
    """What the training set says of a condition, for a user to judge what to expect."""
    if cell is None:
        return f"⚠ The model never saw “{condition}” in training: expect a wrong image."
    patients = f"{cell.patients:,} patient{'s' * (cell.patients != 1)}"
    known = f"{cell.slices:,} training slices of {patients}"
    if cell.condition != condition:
        known = f"Most of it “{cell.condition}”: {known}"
    return f"{known}, {cell.spacing_mm:.2g} mm a pixel." if cell.spacing_mm else f"{known}, pixel size not known."
