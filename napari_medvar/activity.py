"""`Activity`: shows long work in napari's activity dock, with a button that cancels it."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from napari.utils import cancelable_progress

_PATIENCE = 2.0  # seconds of work before a progress bar appears: one that only flashes disturbs, and costs time
_BETWEEN = 200  # ms between two updates of the bar


class Activity(QObject):
    """The progress bar of one piece of work at a time. GUI thread only.

    napari processes events, such as drawing and mouse clicks, whenever a progress bar moves. A timer therefore moves
    the bar, so that this never happens while an image is being shown.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._bar: cancelable_progress | None = None
        self._began = 0.0
        self._cancel: Callable[[], object] = lambda: None
        self._done, self._total, self._text = 0, 0, ""
        self._timer = QTimer(self)
        self._timer.setInterval(_BETWEEN)
        self._timer.timeout.connect(self._look)

    def begin(self, text: str, cancel: Callable[[], object]) -> None:
        """Start to show work described by ``text``; the button calls ``cancel``."""
        self.end()
        self._began, self._cancel = perf_counter(), cancel
        self._done, self._total, self._text = 0, 0, text
        self._timer.start()

    def report(self, done: int, total: int, text: str) -> None:
        """Show that ``done`` of ``total`` steps are finished, with ``text`` beside the bar."""
        self._done, self._total, self._text = done, total, text

    def end(self) -> None:
        """Remove the bar, because the work has ended."""
        self._timer.stop()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _look(self) -> None:
        if self._bar is None:
            if perf_counter() - self._began < _PATIENCE:
                return
            from napari.utils import cancelable_progress

            self._bar = cancelable_progress(total=self._total, desc=self._text, cancel_callback=self._cancel)
        bar = self._bar
        if bar.is_canceled:
            self._cancel()
        if bar.total != self._total:
            bar.total = self._total
        bar.set_description(f"MedVAR: {self._text}")
        if self._done != bar.n:
            bar.update(self._done - bar.n)
