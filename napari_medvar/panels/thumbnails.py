"""A contact sheet to choose from, with the mouse or the arrow keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from medvar_engine.types import FloatArray

_SIDE = 72  # of a thumbnail: three fit into a narrow dock
_ROWS = 3  # seen without scrolling


def icon_of(pixels: FloatArray) -> QIcon:
    """A picture ``(H, W)`` or ``(H, W, 3)`` in [-1, 1] as an icon, at full resolution: sharp on any screen."""
    levels = np.ascontiguousarray(np.rint((np.clip(pixels, -1, 1) + 1) * 127.5).astype(np.uint8))
    height, width = levels.shape[:2]
    form = QImage.Format.Format_Grayscale8 if levels.ndim == 2 else QImage.Format.Format_RGB888
    image = QImage(levels.tobytes(), width, height, levels.strides[0], form)
    pixmap = QPixmap.fromImage(image.copy())  # a copy, for QImage does not keep the bytes alive
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # Qt would tint it
    return icon


class Thumbnails(QListWidget):
    """Pictures side by side. ``picked`` tells the place of one that was double-clicked, or chosen with Enter."""

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setViewMode(QListWidget.ViewMode.IconMode)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setMovement(QListWidget.Movement.Static)
        self.setUniformItemSizes(True)
        self.setIconSize(QSize(_SIDE, _SIDE))
        self.setSpacing(2)
        self.setStyleSheet(
            "QListView::item { border: 2px solid transparent; }"
            "QListView::item:selected { border: 2px solid palette(highlight); background: transparent; }"
        )
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.itemActivated.connect(lambda item: self.picked.emit(self.row(item)))

    def show_pictures(self, pictures: Sequence[FloatArray], captions: Sequence[str]) -> None:
        """These, keeping the selected place when there are as many as before."""
        row = self.currentRow() if self.count() == len(pictures) else -1
        self.clear()
        for pixels, caption in zip(pictures, captions, strict=True):
            item = QListWidgetItem(icon_of(pixels), caption)
            item.setTextAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom)
            item.setToolTip(f"<p>{caption}: press Enter or double-click to choose it.</p>")
            self.addItem(item)
        self.setCurrentRow(max(row, 0) if pictures is not None and len(pictures) else -1)
        lines = min(_ROWS, max(1, -(-self.count() // 3)))
        self.setFixedHeight(lines * (_SIDE + self.fontMetrics().height() + 12) + 8)
