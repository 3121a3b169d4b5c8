"""`KeyLabel`: shows the key of a button at its right edge."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QLabel, QPushButton

_MARGIN = 6  # px to the right of the key


class KeyLabel(QLabel):
    """A small label inside ``button``, whose text moves to the left of it."""

    def __init__(self, button: QPushButton) -> None:
        super().__init__(button)
        self._button, self._style = button, button.styleSheet()
        self.setStyleSheet("font-size: 10px; font-weight: normal; padding: 0; background: transparent;")
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        button.installEventFilter(self)

    def show_key(self, text: str) -> None:
        """Show a key, e.g. ``Ctrl+Shift+R``; nothing if ``text`` is empty."""
        self.setText(text.replace("Shift", "⇧"))
        self.adjustSize()
        space = self.width() + _MARGIN if text else 0
        self._button.setStyleSheet(f"{self._style} padding-right: {space}px;")
        self._move()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # Qt's own name
        """Stay at the right edge of the button."""
        if event is not None and event.type() in (QEvent.Type.Resize, QEvent.Type.Show):
            self.adjustSize()  # napari's fonts are known only now
            self._move()
        return False

    def _move(self) -> None:
        self.move(self._button.width() - self.width() - _MARGIN, (self._button.height() - self.height()) // 2)
