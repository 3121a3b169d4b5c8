"""`Thumbnails`: a grid of images to choose from. Resting the mouse on one shows it enlarged."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent, QSize, Qt, Signal
from qtpy.QtGui import QHelpEvent, QIcon, QResizeEvent
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from medvar_engine.types import FloatArray
from napari_medvar.panels.form_rows import ANY_HEIGHT
from napari_medvar.panels.icons import icon_of, show_large

_SIDE = 64  # px per side of a thumbnail: three fit into a narrow dock
_ROWS = 3  # rows seen without scrolling
_BETWEEN = 12  # px between two thumbnails
_SCROLL_BAR = 18  # px


class Thumbnails(QListWidget):
    """A grid of thumbnails. ``picked`` emits the index of the image that was double-clicked or chosen with Enter."""

    picked = Signal(int)

    def __init__(self, side: int = _SIDE) -> None:
        """``side`` is the least side of a thumbnail in px; thumbnails grow to fill the width."""
        super().__init__()
        self._side, self._fits = side, True
        self.setViewMode(QListWidget.ViewMode.IconMode)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setMovement(QListWidget.Movement.Static)
        self.setStyleSheet(
            "QListView::item { border: 2px solid transparent; }"
            "QListView::item:selected { border: 2px solid palette(highlight); background: transparent; }"
        )
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.itemActivated.connect(lambda item: self.picked.emit(self.row(item)))

    def show_images(self, images: Sequence[FloatArray], captions: Sequence[str]) -> None:
        """Show images in [-1, 1]. The selected index is kept if the number of images is the same as before."""
        tips = [f"{caption}: press Enter or double-click to choose it." for caption in captions]
        self.show_icons([icon_of(pixels) for pixels in images], captions, tips)

    def show_icons(
        self, icons: Sequence[QIcon], captions: Sequence[str], tips: Sequence[str], large_icons: Sequence[QIcon] = ()
    ) -> None:
        """Show icons; ``large_icons`` are shown instead when the mouse rests on one."""
        row = self.currentRow() if self.count() == len(icons) else -1
        self.clear()
        for icon, caption, tip, shown in zip(icons, captions, tips, large_icons or icons, strict=True):
            item = QListWidgetItem(icon, caption)
            item.setTextAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom)
            item.setToolTip(f"<p>{tip}</p>")
            item.setData(Qt.ItemDataRole.UserRole, shown)
            self.addItem(item)
        self.setCurrentRow(max(row, 0) if icons else -1)
        self._fit()

    def change_text(self, place: int, caption: str, tip: str) -> None:
        """Change the caption and the tooltip of one image."""
        if (item := self.item(place)) is not None:
            item.setText(caption)
            item.setToolTip(f"<p>{tip}</p>")

    def change_icon(self, place: int, icon: QIcon) -> None:
        """Change the icon of one image."""
        if (item := self.item(place)) is not None:
            item.setIcon(icon)
            item.setData(Qt.ItemDataRole.UserRole, icon)
            self.scheduleDelayedItemsLayout()  # otherwise Qt does not move an item that gets its first icon

    def resize_thumbnails(self, side: int, *, fits: bool) -> None:
        """Set the least side in px. With ``fits`` the grid is a few rows high; otherwise it fills the window."""
        self._side, self._fits = side, fits
        if not fits:
            self.setMinimumHeight(0)
            self.setMaximumHeight(ANY_HEIGHT)
        self._fit()

    def viewportEvent(self, event: QEvent | None) -> bool:  # Qt's own name
        """Show the image under the mouse enlarged. The enlarged image is made only then, because that takes time."""
        if isinstance(event, QHelpEvent) and (item := self.itemAt(event.pos())) is not None:
            show_large(event, self, item.data(Qt.ItemDataRole.UserRole), item.toolTip())
            return True
        return bool(super().viewportEvent(event))

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Adapt the number of rows to the new width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        """Fit as many thumbnails as possible into a row, enlarge them to fill it, and set the height to a few rows."""
        width = self.width() - 2 * self.frameWidth() - _SCROLL_BAR
        beside = max(1, width // (self._side + _BETWEEN))
        side = max(self._side, width // beside - _BETWEEN)
        row = side + _BETWEEN + self.fontMetrics().height()
        if self.iconSize().width() != side:
            self.setIconSize(QSize(side, side))
            self.setGridSize(QSize(side + _BETWEEN, row))  # the same size for images without an icon
        if self._fits:
            lines = min(_ROWS, max(1, -(-self.count() // beside)))
            height = lines * row + 2 * self.frameWidth() + 2
            if self.minimumHeight() != height or self.maximumHeight() != height:
                self.setFixedHeight(height)
