"""From coarse to fine: make scales, look at each, and draw anew from one of them."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QLabeledSlider

from medvar_engine.schedule import ScaleSchedule
from napari_medvar.panels.common import calm

_GENERATE_TIP = "Make a whole picture, scale by scale, from the coarsest to the finest."
_FINISH_TIP = "Make the scales that this picture still lacks."


class ScalesPanel(QWidget):
    """Generate, Step, Stop; a slider over the scales; resample and undo."""

    generate = Signal()
    step = Signal()
    stop = Signal()
    resample = Signal(int)  # from scale
    undo = Signal()
    redo = Signal()
    looked_at = Signal(int)  # the user wants to see this scale

    def __init__(self) -> None:
        super().__init__()
        self._schedule: ScaleSchedule | None = None
        self._made = 0
        self.generate_button = _button("Generate", _GENERATE_TIP, self.generate)
        self.generate_button.setStyleSheet("font-weight: bold;")
        self.step_button = _button("Step", "Make one more scale, and look at it before you go on.", self.step)
        self.stop_button = _button("Stop", "Stop after the scale that is being made. What is there stays.", self.stop)
        self.slider = QLabeledSlider(Qt.Orientation.Horizontal)
        self.slider.setToolTip("<p>Show the picture as it was after this scale.</p>")
        self.slider.setAccessibleName("Scale")
        self.slider.valueChanged.connect(self._moved)
        self.title = QLabel()
        self.resample_button = QPushButton()
        self.resample_button.clicked.connect(lambda: self.resample.emit(self.scale))
        self.undo_button = _button("Undo", "Back to the picture before the last Generate, Step or Resample.", self.undo)
        self.redo_button = _button("Redo", "Take back the last Undo.", self.redo)

        actions = QGridLayout()
        actions.addWidget(self.generate_button, 0, 0, 1, 2)
        actions.addWidget(self.step_button, 1, 0)
        actions.addWidget(self.stop_button, 1, 1)
        back = QHBoxLayout()
        back.addWidget(self.undo_button)
        back.addWidget(self.redo_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(actions)
        layout.addWidget(self.title)
        layout.addWidget(calm(self.slider))
        layout.addWidget(self.resample_button)
        layout.addLayout(back)
        self._describe()

    @property
    def scale(self) -> int:
        """The scale looked at."""
        return int(self.slider.value())

    def offer(self, schedule: ScaleSchedule) -> None:
        """The scales of a model; none is made yet."""
        self._schedule = schedule
        self.slider.setRange(0, len(schedule) - 1)
        self.show_made(0)

    def show_made(self, depth: int, *, follow: bool = True) -> None:
        """``depth`` scales are made; with ``follow``, look at the newest. ``looked_at`` tells of users only."""
        self._made = depth
        if follow:
            self._set_quietly(max(0, depth - 1))
        self._describe()

    def allow(self, *, ready: bool, running: bool, stoppable: bool, unfinished: bool, undo: bool, redo: bool) -> None:
        """Enable what can be done now."""
        idle = ready and not running
        self.generate_button.setEnabled(idle)
        self.generate_button.setText("Finish" if unfinished else "Generate")
        self.generate_button.setToolTip(f"<p>{_FINISH_TIP if unfinished else _GENERATE_TIP}</p>")
        self.step_button.setEnabled(idle)
        self.stop_button.setEnabled(stoppable)
        self.slider.setEnabled(self._made > 0)
        self.resample_button.setEnabled(idle and self._made > 0)
        self.undo_button.setEnabled(idle and undo)
        self.redo_button.setEnabled(idle and redo)

    def _moved(self, k: int) -> None:
        if k >= self._made:  # not made yet
            self._set_quietly(max(0, self._made - 1))
        self._describe()
        if self._made:
            self.looked_at.emit(self.scale)

    def _set_quietly(self, k: int) -> None:
        self.slider.blockSignals(True)
        self.slider.setValue(k)
        self.slider.blockSignals(False)

    def _describe(self) -> None:
        k = self.scale
        kept = f"Scales 0 to {k - 1}, and with them the layout so far, stay as they are; scale" if k else "Scale"
        self.resample_button.setText(f"Resample from scale {k}")
        self.resample_button.setToolTip(
            f"<p>{kept} {k} and all finer ones are drawn anew, with a new seed and the settings above.</p>"
        )
        if self._schedule is None or not self._made:
            self.title.setText("No picture yet")
            return
        side = self._schedule[k]
        last = "finished" if k + 1 == len(self._schedule) else "preview"
        self.title.setText(f"Scale {k} of {len(self._schedule) - 1} · {side}×{side} · {last}")


def _button(text: str, tip: str, signal: Signal) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(f"<p>{tip}</p>")
    button.clicked.connect(lambda: signal.emit())
    return button
