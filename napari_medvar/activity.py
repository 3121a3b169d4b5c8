"""`Activity`: shows long work in napari's activity dock, with a button that cancels it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from napari.utils import cancelable_progress

_PATIENCE = 2.0  # seconds of work before a progress bar appears: one that only flashes disturbs, and costs time
_BETWEEN = 200  # ms between two updates of the bar


class Activity(QObject):
    """The progress bar of one piece of work at a time. GUI thread only.

    napari processes events, such as drawing and mouse clicks, whenever a progress bar appears or moves. A timer
    therefore moves the bar, so that this never happens while an image is being shown. Work may end, and other work
    begin, while a bar moves; each piece of work therefore has its own bar.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._work: _Work | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_BETWEEN)
        self._timer.timeout.connect(self._look)

    def begin(self, text: str, cancel: Callable[[], object]) -> None:
        """Start to show work described by ``text``; the button calls ``cancel``."""
        self._replace(_Work(text, cancel))
        self._timer.start()

    def report(self, done: int, total: int, text: str) -> None:
        """Show that ``done`` of ``total`` steps are finished, with ``text`` beside the bar."""
        if self._work is not None:
            self._work.done, self._work.total, self._work.text = done, total, text

    def end(self) -> None:
        """Remove the bar, because the work has ended."""
        self._timer.stop()
        self._replace(None)

    def _replace(self, work: _Work | None) -> None:
        ended, self._work = self._work, work
        if ended is not None and not ended.moving:
            ended.close()

    def _look(self) -> None:
        work = self._work
        if work is None or work.moving or perf_counter() - work.began < _PATIENCE:
            return
        try:
            work.move()
        finally:
            if work is not self._work:  # it ended while napari processed events
                work.close()


@dataclass(eq=False)
class _Work:
    text: str
    cancel: Callable[[], object]
    done: int = 0
    total: int = 0
    began: float = field(default_factory=perf_counter)
    bar: cancelable_progress | None = None
    moving: bool = False

    def move(self) -> None:
        """Show the bar where the work is. napari processes events meanwhile."""
        self.moving = True
        try:
            self._move()
        finally:
            self.moving = False

    def _move(self) -> None:
        if self.bar is None:
            from napari.utils import cancelable_progress

            self.bar = cancelable_progress(total=self.total, desc=self.text, cancel_callback=self.cancel)
        if self.bar.is_canceled:
            self.cancel()
        if self.bar.total != self.total:
            self.bar.total = self.total
        self.bar.set_description(f"MedVAR: {self.text}")
        if self.done != self.bar.n:
            self.bar.update(self.done - self.bar.n)

    def close(self) -> None:
        """Remove the bar, if there is one."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
