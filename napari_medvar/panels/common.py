"""What panels share."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QFormLayout, QLabel, QWidget


class _OnlyWithFocus(QObject):
    """Keeps the mouse wheel from changing a value that the user merely scrolls past."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # Qt's own name
        if event is None or event.type() != QEvent.Type.Wheel or not isinstance(watched, QWidget) or watched.hasFocus():
            return False
        event.ignore()
        return True


def calm(widget: QWidget) -> QWidget:
    """``widget``, which now ignores the mouse wheel until it is clicked."""
    widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    widget.installEventFilter(_OnlyWithFocus(widget))
    return widget


def add_row(form: QFormLayout, text: str, widget: QWidget, tip: str) -> None:
    """A labelled row. The tooltip belongs to both, for people point at either."""
    label = QLabel(text)
    label.setBuddy(widget)
    label.setMinimumWidth(label.fontMetrics().horizontalAdvance("Temperature  "))  # the widest: forms line up
    for part in (label, widget):
        part.setToolTip(f"<p>{tip}</p>")  # as rich text, it wraps
    widget.setAccessibleName(text)
    form.addRow(label, widget)


def plain_form(owner: QWidget) -> QFormLayout:
    """A form without margins, whose fields take the width there is."""
    form = QFormLayout(owner)
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def quiet(label: QLabel) -> QLabel:
    """``label`` as small, wrapping, selectable text."""
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setStyleSheet("font-size: 11px;")
    return label
