"""`EngineWorker`: runs all engine work outside the GUI thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal

from medvar_engine.errors import MedvarError

ShouldStop = Callable[[], bool]
Work = Callable[[ShouldStop], Iterable[object]]

# Results that may wait for the GUI. With one, the engine makes the next scale while the GUI draws this one.
_AHEAD = 1


class EngineWorker(QObject):
    """Runs one piece of work at a time in another thread and passes its results to the GUI thread.

    Every result of ``made`` must be answered by `acknowledge`. Otherwise results would queue up when drawing is slow,
    and *Stop* would take effect too late.
    """

    made = Signal(object)
    failed = Signal(
        str
    )  # the message of a `MedvarError`; any other exception is a bug, which napari shows with its traceback
    finished = Signal()

    def __init__(self) -> None:
        # No parent: it must outlive the widget for as long as its thread runs.
        super().__init__()
        self._task: _Task | None = None

    @property
    def running(self) -> bool:
        """Whether work is in progress."""
        return self._task is not None

    def start(self, work: Work) -> None:
        """Start ``work``; its argument is a function that returns whether it should stop.

        Raises `RuntimeError` while other work is in progress.
        """
        if self._task is not None:
            raise RuntimeError("work is already in progress")
        self._task = _Task(work, self)
        create_worker(self._task, _connect={"finished": self._done})

    @property
    def ahead(self) -> bool:
        """Whether the next result is ready and waits for this one to be acknowledged."""
        return self._task is not None and self._task.ahead.is_set()

    def acknowledge(self) -> None:
        """Declare one result as handled by the GUI."""
        if self._task is not None:
            self._task.room.release()

    def stop(self) -> None:
        """Ask the work to stop; it stops within one scale."""
        if self._task is not None:
            self._task.stop.set()

    def close(self) -> None:
        """Stop the work and emit no more signals, because the widget is closed."""
        self.blockSignals(True)
        self.stop()
        self.acknowledge()  # the thread may be waiting for an acknowledgement that will not come

    def _done(self) -> None:
        self._task = None
        self.finished.emit()


class _Task:
    """One piece of work. It runs in its own thread and reports by the signals of ``worker``."""

    def __init__(self, work: Work, worker: EngineWorker) -> None:
        self.stop = threading.Event()
        self.ahead = threading.Event()
        self.room = threading.Semaphore(_AHEAD)
        self._work, self._worker = work, worker

    def __call__(self) -> None:
        try:
            for result in self._work(self.stop.is_set):
                self.ahead.set()
                self.room.acquire()
                self.ahead.clear()
                self._worker.made.emit(result)
                if self.stop.is_set():  # not all work checks this itself
                    break
        except MedvarError as error:
            self._worker.failed.emit(str(error))

    def __repr__(self) -> str:
        # napari shows this when the viewer is closed during the work: "Executing MedVAR Generate".
        return "MedVAR Generate"
