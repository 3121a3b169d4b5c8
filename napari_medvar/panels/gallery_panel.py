"""`GalleryPanel`: thumbnails of all images of the session, to star, delete or continue them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QComboBox, QDialog, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_medvar.panels.form_rows import add_row, button, plain_column, plain_form, small_text, without_wheel
from napari_medvar.panels.icons import STAR, Icons
from napari_medvar.panels.thumbnails import Thumbnails

_HINT = "To make several images at once, set “Images” above to 16, for example, and press Generate. They appear here."
_SIDE, _LARGE_SIDE = 64, 160  # px of a thumbnail in the dock, and in a window
_WINDOW = 900, 700


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """One thumbnail of the gallery."""

    id: int
    number: str
    about: str  # text of its tooltip
    starred: bool


class GalleryPanel(QWidget):
    """The thumbnails and buttons for the selected ones. The panel can move to a separate window."""

    select = Signal(int)  # id of the image to make the current one
    star = Signal(object, bool)  # ids, and whether to star or unstar them
    delete = Signal(object)  # ids
    save_starred = Signal()
    filtered = Signal()

    def __init__(self, icons: Icons) -> None:
        super().__init__()
        self._icons = icons
        self._shown: tuple[GalleryItem, ...] = ()
        self._idle = False
        self.separate_window: QDialog | None = None
        self.filter_combo = QComboBox()
        self.filter_combo.addItem("all images", False)
        self.filter_combo.addItem("starred images", True)
        self.filter_combo.currentIndexChanged.connect(lambda: self.filtered.emit())
        self.sheet = Thumbnails(_SIDE)
        self.sheet.setSelectionMode(Thumbnails.SelectionMode.ExtendedSelection)
        self.sheet.setAccessibleName("Gallery")
        self.sheet.itemSelectionChanged.connect(self._allow)
        self.sheet.picked.connect(lambda place: self.select.emit(self._shown[place].id))
        self.sheet.installEventFilter(self)
        self.hint = small_text(QLabel(_HINT))
        self.star_button = button(f"{STAR} Star", "Star the selected images, or remove their stars (S).", self._star)
        self.continue_button = button(
            "Continue one", "Make the selected image the current one, to view or edit it (Enter).", self._select
        )
        self.delete_button = button(
            "Delete", "Delete the selected images (Delete key). Undo restores them.", self._delete
        )
        self.save_button = button(
            "Save the starred…",
            "Write the starred images to a folder, in the format chosen under Save.",
            self.save_starred.emit,
        )
        self.window_button = button(
            "Show in a window", "Show the gallery in a separate window, with larger thumbnails.", self.show_large
        )
        fields = QWidget()
        add_row(plain_form(fields), "Show", without_wheel(self.filter_combo), "Which images the gallery shows.")
        self._content = QWidget()
        self._column = plain_column(self._content)
        self._column.addWidget(fields)
        self._column.addWidget(self.hint)
        self._column.addWidget(self.sheet)
        grid = QGridLayout()
        for place, widget in enumerate((self.star_button, self.continue_button, self.delete_button, self.save_button)):
            grid.addWidget(widget, place // 2, place % 2)
        self._column.addLayout(grid)
        self._elsewhere = small_text(QLabel("The gallery is in a separate window."))
        layout = plain_column(self)
        layout.addWidget(self._content)
        layout.addWidget(self._elsewhere)
        layout.addWidget(self.window_button)
        self._elsewhere.hide()
        self.show_images(())

    @property
    def only_starred(self) -> bool:
        """Whether only starred images are shown."""
        return bool(self.filter_combo.currentData())

    @property
    def selected(self) -> list[int]:
        """The ids of the selected images."""
        return [self._shown[self.sheet.row(item)].id for item in self.sheet.selectedItems()]

    def show_images(self, images: Sequence[GalleryItem]) -> None:
        """Show these images in this order, and keep the selection."""
        images = tuple(images)
        if [image.id for image in images] == [image.id for image in self._shown]:
            for place, (image, before) in enumerate(zip(images, self._shown, strict=True)):
                if image != before:
                    self.sheet.change_text(place, _caption(image), image.about)
            self._shown = images
        else:
            selected, self._shown = set(self.selected), images
            icons = [self._icons.get(image.id) for image in images]
            self.sheet.blockSignals(True)
            self.sheet.show_icons(icons, list(map(_caption, images)), [image.about for image in images])
            self.sheet.clearSelection()
            for place, image in enumerate(images):
                if image.id in selected and (item := self.sheet.item(place)) is not None:
                    item.setSelected(True)
            self.sheet.blockSignals(False)
        self.sheet.setVisible(bool(images))
        self.hint.setVisible(not images)
        self._allow()

    def show_icon(self, image: int) -> None:
        """Show the new icon of an image."""
        for place, shown in enumerate(self._shown):
            if shown.id == image:
                self.sheet.change_icon(place, self._icons.get(image))

    def allow(self, *, idle: bool) -> None:
        """Update which controls are enabled."""
        self._idle = idle
        self._allow()

    def show_large(self) -> None:
        """Move the gallery to a separate window; closing the window moves it back."""
        if self.separate_window is not None:
            self.separate_window.activateWindow()
            return
        window = self.separate_window = QDialog(self)  # a child of the panel, so that both close together
        window.setWindowTitle("MedVAR gallery")
        window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        window.resize(*_WINDOW)
        self.sheet.resize_thumbnails(_LARGE_SIDE, fits=False)
        QVBoxLayout(window).addWidget(self._content)
        self._elsewhere.show()
        window.finished.connect(self._return_to_dock)
        window.show()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # Qt's own name
        """Handle the keys: S stars, Delete deletes."""
        if not self._pressed(event):
            super().keyPressEvent(event)

    def eventFilter(self, watched: object, event: QEvent | None) -> bool:  # Qt's own name
        """Handle the same keys while the list has the focus; otherwise it would search captions for the letter."""
        return isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress and self._pressed(event)

    # -- internals --------------------------------------------------------------------------------------------------

    def _pressed(self, event: QKeyEvent | None) -> bool:
        buttons = {Qt.Key.Key_S: self.star_button, Qt.Key.Key_Delete: self.delete_button}
        if event is None or event.modifiers() != Qt.KeyboardModifier.NoModifier:
            return False
        pressed = next((each for key, each in buttons.items() if key == event.key()), None)
        if pressed is not None:
            pressed.click()
        return pressed is not None

    def _return_to_dock(self) -> None:
        self.sheet.resize_thumbnails(_SIDE, fits=True)
        layout = self.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.insertWidget(0, self._content)
        self._elsewhere.hide()
        self.separate_window = None

    def _star(self) -> None:
        chosen = self.selected
        unstarred = any(not image.starred for image in self._shown if image.id in chosen)
        self.star.emit(chosen, unstarred)

    def _select(self) -> None:
        self.select.emit(self.selected[0])

    def _delete(self) -> None:
        self.delete.emit(self.selected)

    def _allow(self) -> None:
        count = len(self.selected)
        self.star_button.setEnabled(self._idle and count > 0)
        self.delete_button.setEnabled(self._idle and count > 0)
        self.continue_button.setEnabled(self._idle and count == 1)
        self.save_button.setEnabled(self._idle and any(image.starred for image in self._shown))


def _caption(image: GalleryItem) -> str:
    return f"{STAR} {image.number}" if image.starred else image.number
