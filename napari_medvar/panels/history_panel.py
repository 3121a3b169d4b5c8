"""`HistoryPanel`: all images of the session.

An image is listed below the one it was made from; branches are indented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qtpy.QtCore import QEvent, QSize, Qt, Signal
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QGridLayout, QTreeWidget, QTreeWidgetItem, QWidget

from napari_medvar.panels.form_rows import button, plain_column
from napari_medvar.panels.height_handle import HeightHandle
from napari_medvar.panels.icons import STAR, Icons, show_large

_SIDE = 40
_HEIGHT = 220


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One image of the history."""

    id: int
    parent: int | None
    name: str
    about: str  # text of its tooltip
    starred: bool = False


class _Tree(QTreeWidget):
    """A list that shows the image under the mouse enlarged."""

    def viewportEvent(self, event: QEvent | None) -> bool:  # Qt's own name
        if isinstance(event, QHelpEvent) and (item := self.itemAt(event.pos())) is not None:
            show_large(event, self, item.icon(0), item.toolTip(0))
            return True
        return bool(super().viewportEvent(event))


class HistoryPanel(QWidget):
    """The list, and buttons to show, rename, delete and compare images."""

    select = Signal(int)
    rename = Signal(int, str)
    delete = Signal(object)  # list of ids
    compare = Signal(int, int)
    end_compare = Signal()

    def __init__(self, icons: Icons) -> None:
        super().__init__()
        self._items: dict[int, QTreeWidgetItem] = {}
        self._icons = icons
        self._entries: tuple[HistoryEntry, ...] = ()
        self._idle = False
        self.tree = _Tree()
        self.tree.setHeaderHidden(True)
        self.tree.setIconSize(QSize(_SIDE, _SIDE))
        self.tree.setIndentation(14)
        self.tree.setRootIsDecorated(False)
        self.tree.setWordWrap(True)  # long names take two lines beside the thumbnail
        self.tree.setSelectionMode(QTreeWidget.SelectionMode.ExtendedSelection)
        self.tree.setEditTriggers(QTreeWidget.EditTrigger.EditKeyPressed)
        self.tree.setAccessibleName("History")
        self.tree.setToolTip(
            "<p>Press Enter or double-click to show an image, F2 to rename it, Delete to delete it.</p>"
        )
        self.tree.itemActivated.connect(lambda item: self.select.emit(_id(item)))
        self.tree.itemChanged.connect(self._renamed)
        self.tree.itemSelectionChanged.connect(self._allow)
        self.show_button = button("Show", "Make the selected image the current one.", lambda: self._select())
        self.rename_button = button("Rename", "Rename the selected image (F2).", self._edit)
        self.delete_button = button(
            "Delete",
            "Delete the selected images; images made from them stay. Undo restores them.",
            self._delete,
        )
        self.compare_button = button("Co&mpare", "", self._compare)
        self.compare_button.setCheckable(True)
        self.compare_button.setToolTip(
            "<p>Show two images side by side, with linked pan and zoom. Select two with Ctrl, or one to compare it "
            "with the current image. Press again to end the comparison.</p>"
        )
        layout = plain_column(self)
        layout.addWidget(self.tree)
        layout.addWidget(HeightHandle(self.tree, _HEIGHT))
        grid = QGridLayout()
        for place, widget in enumerate((self.show_button, self.rename_button, self.delete_button, self.compare_button)):
            grid.addWidget(widget, place // 2, place % 2)
        layout.addLayout(grid)
        self.allow(idle=False)

    @property
    def selected(self) -> list[int]:
        """The ids of the selected images."""
        return [_id(item) for item in self.tree.selectedItems()]

    def show_entries(self, entries: Sequence[HistoryEntry], current: int | None) -> None:
        """Show all images, parents before children; the current one is bold."""
        entries = tuple(entries)
        if [(entry.id, entry.parent) for entry in entries] != [(entry.id, entry.parent) for entry in self._entries]:
            self._fill(entries)
        elif entries != self._entries:  # an image has more scales, or another name
            self.tree.blockSignals(True)
            for entry in set(entries) - set(self._entries):
                _write(self._items[entry.id], entry)
            self.tree.blockSignals(False)
            self._entries = entries
        for id_, item in self._items.items():
            font = item.font(0)
            if font.bold() != (id_ == current):
                font.setBold(id_ == current)
                self.tree.blockSignals(True)
                item.setFont(0, font)
                self.tree.blockSignals(False)
        if current in self._items:
            if current != self._current and self.selected:
                self._select_only(self._items[current])
            self.tree.scrollToItem(self._items[current])
        self._current = current
        self._allow()

    def show_icon(self, id_: int) -> None:
        """Show the new icon of an image."""
        if id_ in self._items:
            self.tree.blockSignals(True)
            self._items[id_].setIcon(0, self._icons.get(id_))
            self.tree.blockSignals(False)

    def without_thumbnail(self) -> list[int]:
        """The ids of images without a thumbnail, such as those just read from a file."""
        return self._icons.missing(entry.id for entry in self._entries)

    def end_comparing(self) -> None:
        """Release the button “Compare”."""
        self.compare_button.blockSignals(True)
        self.compare_button.setChecked(False)
        self.compare_button.blockSignals(False)

    def allow(self, *, idle: bool) -> None:
        """Update which controls are enabled."""
        self._idle = idle
        self._allow()

    def keyPressEvent(self, event: object) -> None:
        """Handle the Delete key."""
        if event is not None and event.key() == Qt.Key.Key_Delete and self.delete_button.isEnabled():  # type: ignore[attr-defined]
            self._delete()
        else:
            super().keyPressEvent(event)  # type: ignore[arg-type]

    # -- internals --------------------------------------------------------------------------------------------------

    _current: int | None = None

    def _fill(self, entries: tuple[HistoryEntry, ...]) -> None:
        selected, continued = set(self.selected), set[int | None]()
        self.tree.blockSignals(True)
        self.tree.clear()
        self._items = {}
        for entry in entries:
            item = QTreeWidgetItem()
            item.setData(0, Qt.ItemDataRole.UserRole, entry.id)
            _write(item, entry)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            item.setIcon(0, self._icons.get(entry.id))
            parent = self._items.get(entry.parent) if entry.parent is not None else None
            if parent is None:
                self.tree.addTopLevelItem(item)
            elif entry.parent in continued:  # a branch
                parent.addChild(item)
            else:
                around = parent.parent() or self.tree.invisibleRootItem()
                assert around is not None  # a tree has a root
                around.insertChild(around.indexOfChild(parent) + 1, item)
                continued.add(entry.parent)
            self._items[entry.id] = item
            item.setSelected(entry.id in selected)
        self.tree.expandAll()
        self.tree.blockSignals(False)
        self._entries = entries
        if self._items:  # undo may restore them
            self._icons.keep(self._items)

    def _select_only(self, item: QTreeWidgetItem) -> None:
        """Move the selection to the image that has become the current one: buttons and keys act on what is shown."""
        self.tree.blockSignals(True)
        self.tree.setCurrentItem(item)
        self.tree.blockSignals(False)

    def _renamed(self, item: QTreeWidgetItem) -> None:
        names: Mapping[int, str] = {entry.id: entry.name for entry in self._entries}
        name = item.text(0).removeprefix(STAR).strip()
        if name != names.get(_id(item)):
            self.rename.emit(_id(item), name)

    def _select(self) -> None:
        self.select.emit(self.selected[0])

    def _edit(self) -> None:
        self.tree.editItem(self.tree.selectedItems()[0], 0)

    def _delete(self) -> None:
        self.delete.emit(self.selected)

    def _pair(self) -> tuple[int, int] | None:
        """The ids of the two images to compare; None unless two are chosen."""
        chosen = self.selected
        if len(chosen) == 1 and self._current is not None and chosen[0] != self._current:
            return self._current, chosen[0]
        return (chosen[0], chosen[1]) if len(chosen) == 2 else None

    def _compare(self) -> None:
        pair = self._pair()
        if self.compare_button.isChecked() and pair is not None:
            self.compare.emit(*pair)
        else:
            self.end_comparing()
            self.end_compare.emit()
        self._allow()

    def _allow(self) -> None:
        count = len(self.selected)
        self.show_button.setEnabled(self._idle and count == 1)
        self.rename_button.setEnabled(self._idle and count == 1)
        self.delete_button.setEnabled(self._idle and count > 0)
        self.compare_button.setEnabled(self.compare_button.isChecked() or (self._idle and self._pair() is not None))


def _write(item: QTreeWidgetItem, entry: HistoryEntry) -> None:
    item.setText(0, f"{STAR} {entry.name}" if entry.starred else entry.name)
    item.setToolTip(0, f"<p>{entry.about}</p>")


def _id(item: QTreeWidgetItem) -> int:
    return int(item.data(0, Qt.ItemDataRole.UserRole))
