"""`ScalesPanel`: generates the scales from coarse to fine, and plays them."""

from __future__ import annotations

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QToolButton, QWidget
from superqt import QLabeledSlider

from medvar_engine.tokens.schedule import ScaleSchedule
from napari_medvar.panels.form_rows import button, plain_column, without_wheel

_GENERATE_TIP = "Generate a whole image, scale by scale from the coarsest to the finest."
_FINISH_TIP = "Generate the missing scales of this image, and of those begun together with it."
_BEAT = 450  # ms that each scale is shown when playing


class ScalesPanel(QWidget):
    """Buttons Generate, Step, Stop, Undo and Redo, and a slider over the scales with a play button."""

    generate = Signal()
    step = Signal()
    stop = Signal()
    undo = Signal()
    redo = Signal()
    looked_at = Signal(int)  # the user moves to this scale, by hand or by playing
    chosen = Signal(int)  # the user has moved the slider to this scale by hand

    def __init__(self) -> None:
        super().__init__()
        self._schedule: ScaleSchedule | None = None
        self._made = 0
        self.generate_button = button("&Generate", _GENERATE_TIP, self.generate.emit)
        self.generate_button.setStyleSheet("font-weight: bold;")
        self.step_button = button("&Step", "Generate one more scale, then pause.", self.step.emit)
        self.stop_button = button("St&op", "Stop after the current scale. Finished scales are kept.", self.stop.emit)
        self.undo_button = button("&Undo", "Undo the last change.", self.undo.emit)
        self.redo_button = button("Re&do", "Redo the change that was undone last.", self.redo.emit)
        self.slider = QLabeledSlider(Qt.Orientation.Horizontal)
        self.slider.setToolTip("<p>Show the image after this scale. The arrow keys move the slider.</p>")
        self.slider.setAccessibleName("Scale")
        self.slider.setPageStep(1)  # a click into the groove moves by one scale
        self.slider.valueChanged.connect(self._moved)
        self.title = QLabel()
        self.play_button = QToolButton()
        self.play_button.setCheckable(True)
        self.play_button.setToolTip("<p>Play the scales from coarse to fine in a loop. Press again to pause.</p>")
        self.play_button.setAccessibleName("Play the scales")
        self.play_button.toggled.connect(self._play)
        self._timer = QTimer(self)
        self._timer.setInterval(_BEAT)
        self._timer.timeout.connect(self._beat)
        self._play(False)

        actions = QGridLayout()
        actions.addWidget(self.generate_button, 0, 0, 1, 2)
        for place, widget in enumerate((self.step_button, self.stop_button, self.undo_button, self.redo_button)):
            actions.addWidget(widget, 1 + place // 2, place % 2)
        row = QHBoxLayout()
        row.addWidget(self.play_button)
        row.addWidget(without_wheel(self.slider), 1)
        layout = plain_column(self)
        layout.addLayout(actions)
        layout.addWidget(self.title)
        layout.addLayout(row)
        self._describe()

    @property
    def scale(self) -> int:
        """The scale that is shown."""
        return int(self.slider.value())

    @property
    def made(self) -> int:
        """The number of scales that the current image has."""
        return self._made

    def offer(self, schedule: ScaleSchedule) -> None:
        """Offer the scales of a model; none is made yet."""
        self._schedule = schedule
        self.slider.setRange(0, len(schedule) - 1)
        self.show_made(0)

    def show_made(self, depth: int, *, follow: bool = True) -> None:
        """Show that ``depth`` scales are made; with ``follow``, move to the newest, without emitting ``looked_at``."""
        self._made = depth
        if follow:
            self._set_quietly(max(0, depth - 1))
        if depth < 2:
            self.play_button.setChecked(False)
        self._describe()

    def allow(self, *, ready: bool, running: bool, stoppable: bool, unfinished: int, undo: bool, redo: bool) -> None:
        """Update which controls are enabled. ``unfinished`` is the number of images that Generate would finish."""
        idle = ready and not running
        self.generate_button.setEnabled(idle)
        self.generate_button.setText(
            f"Finish {unfinished} (&G)" if unfinished > 1 else "Finish (&G)" if unfinished else "&Generate"
        )
        self.generate_button.setToolTip(f"<p>{_FINISH_TIP if unfinished else _GENERATE_TIP}</p>")
        self.step_button.setEnabled(idle)
        self.stop_button.setEnabled(stoppable)
        self.slider.setEnabled(self._made > 0)
        self.play_button.setEnabled(self._made > 1)
        self.undo_button.setEnabled(idle and undo)
        self.redo_button.setEnabled(idle and redo)

    def _play(self, on: bool) -> None:
        self.play_button.setText("⏸" if on else "▶")
        if on:
            self._timer.start()
        else:
            self._timer.stop()

    def _beat(self) -> None:
        self.slider.setValue((self.scale + 1) % max(1, self._made))

    def _moved(self, k: int) -> None:
        if k >= self._made:  # not made yet
            self._set_quietly(max(0, self._made - 1))
        self._describe()
        if self._made:
            self.looked_at.emit(self.scale)
            if not self.play_button.isChecked():
                self.chosen.emit(self.scale)

    def _set_quietly(self, k: int) -> None:
        self.slider.blockSignals(True)
        self.slider.setValue(k)
        self.slider.blockSignals(False)

    def _describe(self) -> None:
        k = self.scale
        if self._schedule is None or not self._made:
            self.title.setText("No image yet: press Generate.")
            return
        side = self._schedule[k]
        last = "finished" if k + 1 == len(self._schedule) else "preview"
        self.title.setText(f"Scale {k} of {len(self._schedule) - 1} · {side}×{side} tokens · {last}")
