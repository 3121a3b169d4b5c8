"""`EngineWorker`: the one path on which engine work leaves the GUI thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal

from medvar_engine.errors import MedvarError

ShouldStop = Callable[[], bool]
Work = Callable[[ShouldStop], Iterable[object]]

# Results that may wait for the GUI. One: the engine makes the next scale while the GUI draws this one, no further.
_AHEAD = 1


class EngineWorker(QObject):
    """Runs one piece of work at a time in another thread and hands its results to the GUI thread.

    Every result of ``made`` must be answered by `acknowledge`: without that, results would pile up in front of
    a slow screen, and *Stop* would come long after what it should have stopped.
    """

    made = Signal(object)
    failed = Signal(
        str
    )  # the message of a `MedvarError`; any other exception is a bug: napari shows it with its traceback
    finished = Signal()

    def __init__(self) -> None:
        # No parent: it must outlive the widget for as long as its thread runs.
        super().__init__()
        self._task: _Task | None = None

    @property
    def running(self) -> bool:
        """Whether work is going on."""
        return self._task is not None

    def start(self, work: Work) -> None:
        """Start ``work``, which is given the question whether it should stop. One at a time."""
        if self._task is not None:
            raise RuntimeError("work is already going on")
        self._task = _Task(work, self)
        create_worker(self._task, _connect={"finished": self._done})

    @property
    def ahead(self) -> bool:
        """Whether the next result is there already, and waits for this one to be acknowledged."""
        return self._task is not None and self._task.ahead.is_set()

    def acknowledge(self) -> None:
        """The GUI has dealt with one result."""
        if self._task is not None:
            self._task.room.release()

    def stop(self) -> None:
        """Ask the work to stop; it does so within one scale."""
        if self._task is not None:
            self._task.stop.set()

    def close(self) -> None:
        """Stop, and tell nobody any more: the widget is gone."""
        self.blockSignals(True)
        self.stop()
        self.acknowledge()  # the thread may be waiting for a GUI that will never answer

    def _done(self) -> None:
        self._task = None
        self.finished.emit()


class _Task:
    """One piece of work. It runs in its thread, and speaks through the signals of ``worker``."""

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
                if self.stop.is_set():  # not all work asks by itself
                    break
        except MedvarError as error:
            self._worker.failed.emit(str(error))

    def __repr__(self) -> str:
        # What napari shows when the viewer is closed meanwhile: "Executing MedVAR Generate".
        return "MedVAR Generate"
