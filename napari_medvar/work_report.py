"""`WorkReport`: how far the work is, in the panel and in napari's activity dock; and a word when it is done."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from qtpy.QtWidgets import QApplication, QWidget

from napari_medvar.activity import Activity
from napari_medvar.panels.status_panel import StatusPanel

_NO_GUESS = 2.0  # seconds before it is said how long the rest will take
_LONG = 10.0  # seconds after which nobody may be looking any more


class WorkReport:
    """One piece of work at a time. GUI thread only."""

    def __init__(self, owner: QWidget, status: StatusPanel) -> None:
        self._owner, self._status = owner, status
        self._activity = Activity(owner)
        self._began = 0.0
        self._last = ""

    def begin(self, text: str, cancel: Callable[[], object]) -> None:
        """Work has begun: what it is, if that is not to be seen otherwise; ``cancel`` asks it to stop."""
        self._began, self._last = perf_counter(), ""
        self._activity.begin(text, cancel)
        if text:
            self._status.show_busy(text)

    def report(self, done: int, total: int, text: str) -> None:
        """How far it is."""
        self._last = text
        self._status.show_progress(done, total, f"{text} · {perf_counter() - self._began:.1f} s")
        self._activity.report(done, total, text)

    def time_left(self, done: float, total: float) -> str:
        """How long the rest will take, e.g. `` · about 40 s left``; nothing in the first seconds."""
        elapsed = perf_counter() - self._began
        if not 0 < done < total or elapsed < _NO_GUESS:
            return ""
        seconds = elapsed / done * (total - done)
        return f" · about {seconds:.0f} s left" if seconds < 90 else f" · about {seconds / 60:.0f} min left"

    def end(self, *, awaited: bool) -> None:
        """It has ended. Of long work that is ``awaited``, whoever has gone to another window learns it."""
        self._activity.end()
        self._status.end_busy()
        if awaited and perf_counter() - self._began > _LONG:
            from napari.utils.notifications import show_info

            QApplication.alert(self._owner)
            show_info(f"MedVAR is done: {self._last}." if self._last else "MedVAR is done.")
