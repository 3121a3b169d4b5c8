"""`HeightHandle`: a line below a widget that the user drags to change the widget's height."""

from __future__ import annotations

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QFrame, QWidget

_LEAST = 80  # px of height


class HeightHandle(QFrame):
    """A handle to drag with the mouse; a double-click restores the first height."""

    def __init__(self, widget: QWidget, height: int) -> None:
        super().__init__()
        self._widget, self._first = widget, height
        self._grabbed: tuple[float, int] | None = None  # mouse position and height when dragging began
        widget.setFixedHeight(height)
        self.setFrameShape(QFrame.Shape.HLine)
        self.setFixedHeight(8)
        self.setCursor(Qt.CursorShape.SizeVerCursor)
        self.setToolTip("<p>Drag to make the list higher or lower.</p>")

    def event(self, event: QEvent | None) -> bool:  # Qt's own name
        """Follow the mouse."""
        if event is None:
            return False
        kind = event.type()
        if kind == QEvent.Type.MouseButtonPress:
            self._grabbed = _height_of(event), self._widget.height()
        elif kind == QEvent.Type.MouseMove and self._grabbed is not None:
            start, height = self._grabbed
            self._widget.setFixedHeight(max(_LEAST, round(height + _height_of(event) - start)))
        elif kind == QEvent.Type.MouseButtonRelease:
            self._grabbed = None
        elif kind == QEvent.Type.MouseButtonDblClick:
            self._widget.setFixedHeight(self._first)
        else:
            return bool(super().event(event))
        return True


def _height_of(event: QEvent) -> float:
    return float(event.globalPosition().y())  # type: ignore[attr-defined]  # its type says that it is a mouse event
