"""`ConditionPanel`: modality, region, plane and other factors of the image.

It offers only what the model was trained on.
"""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QLabel, QWidget
from superqt import QSearchableComboBox

from medvar_engine.bundle.read import Bundle, SliceType
from medvar_engine.conditions import NAMED, Condition
from napari_medvar.panels.form_rows import add_row, plain_column, plain_form, small_text, without_wheel
from napari_medvar.panels.position import PositionChooser

ANY = "any"
_TIPS = {
    "modality": "The modality: CT, or a kind of MR. “any” leaves it to the model.",
    "region": "The part of the body. Type to search. The list holds only what the model was trained on in this "
    "modality.",
    "plane": "The orientation of the slice. “any” leaves it to the model.",
    "contrast": "The contrast of the acquisition, such as T1 or FLAIR. “any” leaves it to the model.",
    "dataset": "Imitate the style of one training data set. “any” leaves it to the model.",
}
_POSITION_TIP = (
    "The position of the slice along the scan, from 0 to 1: from the feet to the head (axial), from back to front "
    "(coronal), from the patient's left to the right (sagittal). “any” leaves it to the model."
)


class ConditionPanel(QWidget):
    """One searchable list for each factor of the condition. Each list offers what goes with the factors above it."""

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
                # Text that names no entry must not stay and look like part of the request.
                editor.editingFinished.connect(
                    lambda combo=combo: combo.setEditText(combo.itemText(combo.currentIndex()))
                )
            self.combos[factor] = combo
            add_row(self._form, factor.capitalize(), without_wheel(combo), _TIPS[factor])
        self.position = PositionChooser()
        self.position.changed.connect(self._changed)
        add_row(self._form, "Position", self.position, _POSITION_TIP)
        self.note = small_text(QLabel())
        layout = plain_column(self)
        layout.addWidget(fields)
        layout.addWidget(self.note)
        self.note.hide()
        self._show_factors(())

    @property
    def condition(self) -> Condition:
        """The chosen condition."""
        names = {factor: combo.currentData() for factor, combo in self.combos.items()}
        return Condition.from_dict({**names, "position": self.position.value})

    def offer(self, bundle: Bundle) -> None:
        """Offer a bundle's labels. The first choice is its default slice type, or that with most training slices."""
        self._bundle = bundle
        self._show_factors(bundle.labels.factors)
        best = max(bundle.slice_types, key=lambda slice_type: slice_type.slices, default=None)
        known = best.condition if best else Condition()
        self.show_condition(bundle.default_condition or known)

    def show_condition(self, condition: Condition) -> None:
        """Show ``condition``, even one without training slices; a name that the model lacks becomes “any”."""
        for i, factor in enumerate(NAMED):
            self._fill(factor, Condition(**{name: getattr(condition, name) for name in NAMED[: i + 1]}))
        known = self._bundle is not None and self._bundle.labels.position
        self.position.show_value(condition.position if known else None)
        self._changed()

    def _fill(self, factor: str, wanted: Condition) -> None:
        """Offer what goes with the earlier factors of ``wanted``, and choose the value that ``wanted`` has here."""
        if self._bundle is None:
            return
        known, name = getattr(self._bundle.labels, factor), getattr(wanted, factor)
        before = Condition(**{**wanted.to_dict(), factor: None})
        seen = {getattr(slice_type.condition, factor) for slice_type in self._bundle.fitting(before)}
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
        """Update the lists below. A choice that no longer fits is replaced by the one with most training slices."""
        asked = self.condition
        place = NAMED.index(factor)
        for i in range(place + 1, len(NAMED)):
            below = NAMED[i]
            upper = {name: getattr(asked, name) for name in NAMED[:i]}
            fits = self._bundle.fitting(Condition(**upper)) if self._bundle else ()
            names = [getattr(slice_type.condition, below) for slice_type in fits]
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
        condition = self.condition
        self.position.show_plane(condition.plane)
        if self._bundle is not None:
            self.note.show()
            self.note.setText(_what_is_known(self._bundle.slice_type(condition), condition))
        self.changed.emit()


def _what_is_known(slice_type: SliceType | None, condition: Condition) -> str:
    """How much training data a condition has, for users to judge the image by."""
    if slice_type is None:
        return f"⚠ The training data contain no “{condition}”: the image will probably be wrong."
    patients = f"{slice_type.patients:,} patient{'s' * (slice_type.patients != 1)}"
    known = f"{slice_type.slices:,} training slices of {patients}"
    if slice_type.condition != condition:
        known = f"Mostly “{slice_type.condition}”: {known}"
    return (
        f"{known}, {slice_type.spacing_mm:.2g} mm per pixel."
        if slice_type.spacing_mm
        else f"{known}, pixel size unknown."
    )
