"""Form rows, buttons and labels that panels share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QAbstractSlider,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

ANY_HEIGHT = 16_777_215  # Qt's value for no limit
_SCROLL_BAR = 18  # px of width that a scroll bar may take
_LETTERS = 3  # letters that a list shows at least
_OPEN, _SHUT = "▾", "▸"
_FOLD_MARGIN = 6  # px above and below the content of a section


class _OnlyWithFocus(QObject):
    """Keeps the mouse wheel from changing values while the user scrolls past them."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # Qt's own name
        if event is None or event.type() != QEvent.Type.Wheel or not isinstance(watched, QWidget) or watched.hasFocus():
            return False
        event.ignore()
        return True


def without_wheel(widget: QWidget) -> QWidget:
    """Make ``widget`` ignore the mouse wheel until it has the keyboard focus, and return it."""
    # The slider of a labelled slider. A list contains scroll bars, which Qt counts as sliders.
    inside = [] if isinstance(widget, QComboBox) else widget.findChildren(QAbstractSlider)
    for part in (widget, *inside):
        part.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        part.installEventFilter(_OnlyWithFocus(part))
    if inside:
        widget.setFocusProxy(inside[0])
    if isinstance(widget, QComboBox):  # as narrow as the dock, however long its texts
        widget.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        widget.setMinimumContentsLength(_LETTERS)
    return widget


def add_row(form: QFormLayout, text: str, widget: QWidget, tip: str) -> None:
    """Add a labelled row. The label and the widget have the same tooltip."""
    label = QLabel(text)
    label.setBuddy(widget)
    label.setMinimumWidth(
        label.fontMetrics().horizontalAdvance("Temperature  ")
    )  # the widest label, so that all forms are aligned
    for part in (label, widget):
        part.setToolTip(f"<p>{tip}</p>")  # as rich text, it wraps
    for part in {widget, widget.focusProxy() or widget}:
        part.setAccessibleName(text.replace("&", ""))
    form.addRow(label, widget)


def tab_after(before: QWidget, widgets: Iterable[QWidget]) -> None:
    """Let the Tab key go from ``before`` through ``widgets``, although they were created later."""
    for widget in widgets:
        QWidget.setTabOrder(before, widget)
        before = widget


def plain_form(owner: QWidget) -> QFormLayout:
    """A form without margins, with fields that fill the width."""
    form = QFormLayout(owner)
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def small_text(label: QLabel) -> QLabel:
    """Show the text of ``label`` small and wrapped; returns ``label``."""
    label.setWordWrap(True)
    label.setStyleSheet("font-size: 11px;")
    return label


def selectable(label: QLabel) -> QLabel:
    """Make the text of ``label`` selectable for copying; returns ``label``.

    Use it only for texts that users copy: Qt repaints such labels, and with them the whole window, at every change of
    the layout.
    """
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def button(text: str, tip: str, pressed: Callable[[], object]) -> QPushButton:
    """A button that calls ``pressed``. An ampersand in ``text`` makes the next letter its key, together with Alt."""
    widget = QPushButton(text)
    widget.setToolTip(f"<p>{tip}</p>")
    widget.clicked.connect(lambda: pressed())
    return widget


def fold(title: str, content: QWidget, tip: str) -> QCollapsible:
    """A collapsible section that a click on its title opens and closes."""
    section = QCollapsible(
        expandedIcon=QIcon(), collapsedIcon=QIcon()
    )  # superqt's own icons are small and have a fixed colour
    section.setDuration(0)
    section.toggled.connect(lambda on: section.setText(f"{_OPEN if on else _SHUT} {title}"))
    # superqt would limit the height to that of the unwrapped texts.
    section.toggled.connect(lambda on: section.content().setMaximumHeight(ANY_HEIGHT if on else 0))
    section.setText(f"{_SHUT} {title}")
    section.toggleButton().setToolTip(f"<p>{tip}</p>")
    section.toggleButton().setAccessibleName(title)
    outer, inner = section.layout(), section.content().layout()
    assert outer is not None
    assert inner is not None
    outer.setAlignment(Qt.AlignmentFlag(0))  # aligned at the top, wrapped texts would get too little height
    outer.setContentsMargins(0, 0, 0, 0)
    outer.setSpacing(0)
    inner.setContentsMargins(0, _FOLD_MARGIN, 0, _FOLD_MARGIN)
    inner.addWidget(content)  # not `addWidget` of superqt, which would limit the height again at every change of size
    return section


def small_button(sign: str, tip: str, pressed: Callable[[], object]) -> QToolButton:
    """A button of one character without a frame, such as the ``?`` beside a title."""
    small = QToolButton()
    small.setText(sign)
    small.setToolTip(f"<p>{tip}</p>")
    small.setAccessibleName(tip)
    small.setStyleSheet("QToolButton { border: none; background: transparent; font-weight: bold; }")
    small.clicked.connect(lambda: pressed())
    return small


def beside_title(section: QCollapsible, mark: QToolButton) -> None:
    """Put a question mark at the end of a section's title."""
    row = QHBoxLayout(section.toggleButton())
    row.setContentsMargins(0, 0, 4, 0)
    row.addStretch(1)
    row.addWidget(mark)


def scroll_area(content: QWidget) -> QScrollArea:
    """``content`` in an area that scrolls vertically only."""
    area = QScrollArea()
    area.setWidget(content)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setMinimumWidth(content.minimumSizeHint().width() + _SCROLL_BAR)
    return area


def plain_column(owner: QWidget) -> QVBoxLayout:
    """A column without margins."""
    column = QVBoxLayout(owner)
    column.setContentsMargins(0, 0, 0, 0)
    return column


def fill(combo: QComboBox, items: list[tuple[str, object]]) -> None:
    """Replace the items of a list, and keep the chosen one if it is still among them."""
    if [(combo.itemText(i), combo.itemData(i)) for i in range(combo.count())] == items:
        return
    chosen = combo.currentData()
    combo.blockSignals(True)
    combo.clear()
    for text, data in items:
        combo.addItem(text, data)
        combo.setItemData(combo.count() - 1, text, Qt.ItemDataRole.ToolTipRole)
    combo.setCurrentIndex(max(0, place_of(combo, chosen)) if items else -1)
    combo.blockSignals(False)


def place_of(combo: QComboBox, data: object) -> int:
    """The index of the item with this data, of any type; -1 if there is none."""
    return next((place for place in range(combo.count()) if combo.itemData(place) == data), -1)
