"""`WorkReport`: shows the progress of work in the panel and in napari's activity dock, and a notice when it is done."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from qtpy.QtWidgets import QApplication, QWidget

from napari_medvar.activity import Activity
from napari_medvar.panels.status_panel import StatusPanel

_NO_GUESS = 2.0  # seconds before the remaining time is estimated
_LONG = 10.0  # seconds after which the user may have gone to another window


class WorkReport:
    """Reports one piece of work at a time. GUI thread only."""

    def __init__(self, owner: QWidget, status: StatusPanel) -> None:
        self._owner, self._status = owner, status
        self._activity = Activity(owner)
        self._began = 0.0
        self._last: tuple[int, int, str] | None = None  # done, total, text

    def begin(self, text: str, cancel: Callable[[], object]) -> None:
        """Start to report work. ``text`` describes it, and may be empty; ``cancel`` asks it to stop."""
        self._began, self._last = perf_counter(), None
        self._activity.begin(text, cancel)
        if text:
            self._status.show_busy(text)

    def report(self, done: int, total: int, text: str, *, left: str = "") -> None:
        """Show that ``done`` of ``total`` steps are finished, with ``text`` beside the bar.

        ``left`` is the result of `time_left`; it disappears at the end, also of work that is stopped.
        """
        self._last = done, total, text
        self._show(left)
        self._activity.report(done, total, f"{text}{left}")

    def time_left(self, done: float, total: float) -> str:
        """The estimated remaining time, e.g. `` · about 40 s left``; empty in the first seconds."""
        elapsed = perf_counter() - self._began
        if not 0 < done < total or elapsed < _NO_GUESS:
            return ""
        seconds = elapsed / done * (total - done)
        return f" · about {seconds:.0f} s left" if seconds < 90 else f" · about {seconds / 60:.0f} min left"

    def end(self, *, awaited: bool) -> None:
        """End the report. Long work that is ``awaited`` ends with a notification, for users in another window."""
        self._activity.end()
        self._status.end_busy()
        self._show()
        if awaited and perf_counter() - self._began > _LONG:
            from napari.utils.notifications import show_info

            QApplication.alert(self._owner)
            show_info(f"MedVAR is done: {self._last[2]}." if self._last else "MedVAR is done.")

    def _show(self, left: str = "") -> None:
        if self._last is not None:
            done, total, text = self._last
            self._status.show_progress(done, total, f"{text}{left} · {perf_counter() - self._began:.1f} s")
