"""`EditPanel`: changes to the current image from one scale on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QWidget,
)

from napari_medvar.panels.form_rows import (
    add_row,
    button,
    fill,
    place_of,
    plain_column,
    plain_form,
    small_text,
    tab_after,
    without_wheel,
)
from napari_medvar.panels.icons import Icons

if TYPE_CHECKING:
    from napari.layers import Layer

_SCROLL_BAR = 24  # px
_LOCK = 24  # px wide
_GRAFT = 32  # px of a thumbnail in the list of images
_ARROW = 48  # px of a closed list beside its text and thumbnail
_COLUMNS = 4  # lock buttons side by side in a narrow dock
_WHERE_TIP = (
    "Where the image may change: anywhere, or only inside what is painted in a Labels layer or drawn in a Shapes layer."
)
_OUTSIDE_TIP = (
    "“nearly the same”: tokens outside the mask are kept, but pixels near the mask may change slightly, "
    "because each "
    "token affects its surroundings. “exactly the same”: pixels outside the mask are copied from the image before."
)
_FROM_TIP = (
    "Edits keep the coarser scales, and draw this scale and all finer ones again. The value stays: press a button "
    "again for another result."
)
_FOLLOW_TIP = "Set “From scale” to the scale of the slider above whenever you move the slider."
_MIX_TIP = (
    "Combine the layout of another image with the details of this one: scales below “From scale” come from the other "
    "image, the others from this one."
)
_EDGE_TIP = (
    "The width in pixels, inside the mask, over which the old and the new image are blended, to avoid a visible edge."
)


class EditPanel(QWidget):
    """Mask, locked scales, and the buttons: resample, change the condition, mix two images, pick a token."""

    resample = Signal()
    recondition = Signal()
    graft_chosen = Signal()  # another image to take coarse scales from was chosen
    masked = Signal()  # another mask was chosen
    paint = Signal()
    graft = Signal(int)  # id of the image that gives the coarse scales
    picking = Signal(bool)
    moved = Signal()  # another scale was chosen for edits to begin at
    brush = Signal(int)  # diameter in pixels
    invert = Signal()
    clear_mask = Signal()
    flip = Signal()

    def __init__(self, icons: Icons) -> None:
        super().__init__()
        self._icons = icons
        self.from_box = QSpinBox()
        self.from_box.setRange(0, 0)
        self.from_box.valueChanged.connect(self._put)
        self.follow_box = QCheckBox("follows the slider")
        self.follow_box.setToolTip(f"<p>{_FOLLOW_TIP}</p>")
        self.follow_box.setChecked(True)
        self.mask_combo = QComboBox()
        self.mask_combo.currentIndexChanged.connect(lambda: self._allow_mask())
        self.mask_combo.currentIndexChanged.connect(lambda: self.masked.emit())
        self.paint_button = button(
            "Paint (&B)",
            "Add a Labels layer over the image and select the brush. Paint where the image may change.",
            self.paint.emit,
        )
        self.brush_box = QSpinBox()
        self.brush_box.setRange(1, 500)
        self.brush_box.setSuffix(" px")
        self.brush_box.valueChanged.connect(self.brush)
        self.invert_button = button("Invert", "Swap painted and unpainted areas.", self.invert.emit)
        self.clear_button = button("Clear", "Erase everything that is painted.", self.clear_mask.emit)
        self.outside_combo = QComboBox()
        self.outside_combo.addItem("nearly the same", False)
        self.outside_combo.addItem("exactly the same", True)
        self.outside_combo.currentIndexChanged.connect(lambda: self._allow_mask())
        self.edge_box = QDoubleSpinBox()
        self.edge_box.setRange(0, 64)
        self.edge_box.setDecimals(0)
        self.edge_box.setValue(4)
        self.edge_box.setSuffix(" px")
        self._locks = QWidget()
        self._lock_grid = QGridLayout(self._locks)
        self._lock_grid.setContentsMargins(0, 0, 0, 0)
        self._lock_grid.setSpacing(2)
        self.lock_buttons: list[QPushButton] = []
        self.resample_button = button("&Resample", "", self.resample.emit)
        self.recondition_button = button("Change &condition", "", self.recondition.emit)
        self.flip_button = button(
            "Before / after",
            "Show the image that this one was made from. Press again to return to this one.",
            self.flip.emit,
        )
        self.graft_combo = QComboBox()
        self.graft_combo.currentIndexChanged.connect(lambda: self.graft_chosen.emit())
        self.graft_combo.currentIndexChanged.connect(lambda: self._show_cut_name())
        self.graft_name = small_text(QLabel())
        self.graft_name.hide()
        self.graft_note = small_text(QLabel())
        self.graft_note.hide()
        self.graft_combo.setIconSize(QSize(_GRAFT, _GRAFT))
        self.graft_combo.setPlaceholderText("no other image yet")
        self.graft_button = button("Mix (&T)", "", lambda: self.graft.emit(self.graft_combo.currentData()))
        self.pick_button = button("Pic&k a token in the image", "", lambda: None)
        self.pick_button.setCheckable(True)
        self.pick_button.toggled.connect(self.picking)
        self._lay_out()
        self.offer_masks(())
        self.offer_grafts(())
        self.show_scale(0)

    def _lay_out(self) -> None:
        top = QWidget()
        first = plain_form(top)
        add_row(first, "From scale", without_wheel(self.from_box), _FROM_TIP)
        first.addRow("", self.follow_box)
        self.column = layout = plain_column(self)
        layout.addWidget(top)
        layout.addWidget(self.resample_button)
        layout.addWidget(self.recondition_button)
        layout.addWidget(self.flip_button)
        layout.addWidget(self._what_may_change())
        layout.addWidget(self._mixing())
        layout.addWidget(self.pick_button)

    def _what_may_change(self) -> QWidget:
        """The mask and the locked scales."""
        fields = QWidget()
        form = plain_form(fields)
        add_row(form, "Inside", without_wheel(self.mask_combo), _WHERE_TIP)
        tools = QWidget()
        grid = QGridLayout(tools)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.paint_button, 0, 0)
        grid.addWidget(without_wheel(self.brush_box), 0, 1)
        grid.addWidget(self.invert_button, 1, 0)
        grid.addWidget(self.clear_button, 1, 1)
        add_row(form, "Brush", tools, "Paints a mask, inside which the image may change.")
        self.brush_box.setToolTip("<p>The width of the brush in pixels, for a mask made with Paint.</p>")
        self.brush_box.setAccessibleName("Width of the brush")
        add_row(form, "Outside", without_wheel(self.outside_combo), _OUTSIDE_TIP)
        add_row(form, "Soft edge", without_wheel(self.edge_box), _EDGE_TIP)
        add_row(form, "Locked", self._locks, "The tokens of these scales are kept when other scales are drawn again.")
        return fields

    def _mixing(self) -> QWidget:
        """The other image to mix with."""
        mixing = QWidget()
        column = plain_column(mixing)
        title = QLabel("Mix coarse and fine, coarse scales from:")
        title.setBuddy(self.graft_combo)
        title.setWordWrap(True)
        for part in (title, self.graft_combo):
            part.setToolTip(f"<p>{_MIX_TIP}</p>")
        self.graft_combo.setAccessibleName("Mix coarse scales from")
        for widget in (title, without_wheel(self.graft_combo), self.graft_name, self.graft_note, self.graft_button):
            column.addWidget(widget)
        return mixing

    @property
    def from_scale(self) -> int:
        """The scale at which edits begin."""
        return self.from_box.value()

    @property
    def mask_layer(self) -> Layer | None:
        """The mask layer inside which the image may change; None for anywhere."""
        return self.mask_combo.currentData()  # type: ignore[no-any-return]

    @property
    def exact_outside(self) -> bool:
        """Whether pixels outside the mask stay exactly the same."""
        return self.mask_layer is not None and bool(self.outside_combo.currentData())

    @property
    def soft_edge(self) -> float:
        """Width of the soft edge in pixels."""
        return float(self.edge_box.value()) if self.exact_outside else 0.0

    @property
    def locked(self) -> tuple[int, ...]:
        """The locked scales."""
        return tuple(k for k, lock in enumerate(self.lock_buttons) if lock.isChecked())

    def offer_scales(self, count: int) -> None:
        """Offer the scales of a model. Edits begin at the middle scale, and no scale is locked."""
        self.from_box.setRange(0, count - 1)
        self._put_quietly(count // 2)
        for lock in self.lock_buttons:
            lock.deleteLater()
        self.lock_buttons = []
        for k in range(count):
            lock = QPushButton(str(k))
            lock.setMinimumWidth(_LOCK)
            lock.setCheckable(True)
            lock.setToolTip(f"<p>Keep the tokens of scale {k} when other scales are drawn again.</p>")
            lock.setAccessibleName(f"Lock scale {k}")
            self._lock_grid.addWidget(lock, k // _COLUMNS, k % _COLUMNS)
            self.lock_buttons.append(lock)
        tab_after(self.edge_box, self.lock_buttons)

    def offer_masks(self, layers: Iterable[Layer]) -> None:
        """Offer the layers that can be used as a mask. A layer that was renamed stays chosen."""
        fill(self.mask_combo, [("anywhere", None), *((layer.name, layer) for layer in layers)])
        self._allow_mask()

    def show_brush(self, size: int | None) -> None:
        """Show the brush size of the chosen mask in pixels; None for a mask that Paint did not make."""
        for widget in (self.brush_box, self.invert_button, self.clear_button):
            widget.setEnabled(size is not None)
        if size is not None:
            self.brush_box.blockSignals(True)
            self.brush_box.setValue(size)
            self.brush_box.blockSignals(False)

    def choose_mask(self, layer: Layer | None) -> None:
        """Choose this layer as the mask; None for anywhere."""
        self.mask_combo.setCurrentIndex(max(0, place_of(self.mask_combo, layer)))

    def offer_grafts(self, images: Iterable[tuple[str, int]]) -> None:
        """Offer other images to mix with, as names and ids."""
        fill(self.graft_combo, list(images))
        for place in range(self.graft_combo.count()):
            if self.graft_combo.itemIcon(place).isNull():
                self.graft_combo.setItemIcon(place, self._icons.get(self.graft_combo.itemData(place)))
        if (names := self.graft_combo.view()) is not None:
            names.setMinimumWidth(
                names.sizeHintForColumn(0) + _SCROLL_BAR
            )  # so that names are not cut when the list opens
        self._show_cut_name()

    @property
    def graft_from(self) -> int | None:
        """The id of the image that gives the coarse scales."""
        return self.graft_combo.currentData()  # type: ignore[no-any-return]

    def warn_of_graft(self, text: str) -> None:
        """Show why the two images may not fit together; an empty text hides the warning."""
        self.graft_note.setText(text)
        self.graft_note.setVisible(bool(text))

    def follow(self, k: int) -> None:
        """Follow the slider to scale k, if the user wants that."""
        if self.follow_box.isChecked():
            self._put_quietly(k)
            self.moved.emit()

    def show_scale(self, k: int) -> None:
        """Show that edits begin at scale k."""
        kept = f"Scales 0 to {k - 1}, and so the layout up to there, are kept; scale" if k else "Scale"
        self.resample_button.setText(f"&Resample from scale {k}")
        self.resample_button.setToolTip(
            f"<p>{kept} {k} and all finer ones are drawn again, with a new seed and the settings above.</p>"
        )
        self.recondition_button.setText(f"Change &condition from scale {k} on")
        self.recondition_button.setToolTip(
            f"<p>{kept} {k} and all finer ones are drawn again for the condition chosen above, with the same seed.</p>"
        )
        self.graft_button.setText(f"Mix below scale {k} (&T)")
        coarse = f"Scales 0 to {k - 1} come from the chosen image, the others" if k else "At scale 0, all scales"
        self.graft_button.setToolTip(f"<p>{coarse} come from this one. The result is a new image.</p>")
        self.pick_button.setToolTip(
            f"<p>Click into the image to choose a token of scale {k}, and see previews of the image with other tokens "
            "in its place.</p>"
        )

    def allow(self, *, has_image: bool, complete: bool, scale: int, made_from: bool) -> None:
        """Enable the edits that are possible for the current image while no work is in progress."""
        self.flip_button.setEnabled(has_image and made_from)
        self.resample_button.setEnabled(has_image)
        self.recondition_button.setEnabled(has_image)
        self.paint_button.setEnabled(has_image)
        self.graft_button.setEnabled(has_image and complete and scale > 0 and self.graft_combo.count() > 0)
        self.pick_button.setEnabled(has_image)

    def _put(self) -> None:
        """Keep the scale that the user has chosen here."""
        self.follow_box.setChecked(False)
        self.moved.emit()

    def _put_quietly(self, k: int) -> None:
        self.from_box.blockSignals(True)
        self.from_box.setValue(k)
        self.from_box.blockSignals(False)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # Qt's own name
        """Show the name of the image to mix with in full, at any width."""
        super().resizeEvent(event)
        self._show_cut_name()

    def _show_cut_name(self) -> None:
        """Repeat the name of the image to mix with below the list, where the closed list has to cut it."""
        name = self.graft_combo.currentText()
        needed = self.graft_combo.fontMetrics().horizontalAdvance(name) + _GRAFT + _ARROW
        self.graft_name.setText(name)
        self.graft_name.setVisible(needed > self.graft_combo.width())

    def _allow_mask(self) -> None:
        self.outside_combo.setEnabled(self.mask_layer is not None)
        self.edge_box.setEnabled(self.exact_outside)
