"""`Autosave`: writes the session to disk during the work, so that a crash loses nothing.

Every session has one file in the user's state folder and a lock file beside it. The operating system releases the lock
when the process ends for any reason. A file with a free lock was therefore left by a crash.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic

from medvar_engine.errors import MedvarError
from medvar_engine.storage import is_locked, remove_left, take_lock
from napari_medvar.session.session_file import SUFFIX, SavedSession, read_session, savable, write_session

SECONDS_BETWEEN = 5.0  # while an image is being made; a finished image is written at once


def autosave_folder() -> Path:
    """The default folder for sessions, e.g. ``~/.local/state/medvar/sessions``."""
    from platformdirs import user_state_path

    return user_state_path("medvar", appauthor=False) / "sessions"


class Autosave:
    """The file of one session. No method raises: an error is stored in `problem`, and the work continues."""

    def __init__(self, folder: Path | None = None) -> None:
        self.problem: str | None = None
        self._folder = folder
        self._file: _LockedFile | None = None
        self._written = -SECONDS_BETWEEN

    @property
    def due(self) -> bool:
        """Whether `SECONDS_BETWEEN` have passed since the last writing."""
        return monotonic() - self._written >= SECONDS_BETWEEN

    def write(self, session: SavedSession) -> None:
        """Replace the file by ``session``. If that fails, e.g. on a full disk, the earlier file stays.

        An image that cannot be written is left out; all others are written.
        """
        self._written = monotonic()
        try:
            if self._file is None:
                self._file = _LockedFile(self._folder or autosave_folder())
            try:
                write_session(self._file.path, session)
                self.problem = None
            except Exception as error:
                rest, lost = savable(session)
                if not lost:
                    raise
                write_session(self._file.path, rest)
                self.problem = f"Not saved automatically: {', '.join(lost)}. {error} The rest of the session was saved."
        except Exception as error:  # the work continues after any failure
            self.problem = f"The session cannot be saved automatically: {error} Save it yourself."

    def leave(self) -> None:
        """Continue with a new file. The present file stays, as after a crash, and `recoverable` finds it."""
        if self._file is not None:
            self._file.unlock()
            self._file = None

    def close(self) -> None:
        """End the session and delete its file, because nothing needs to be recovered."""
        if self._file is not None:
            self._file.unlock()
            _remove(self._file.path)
            self._file = None


@dataclass(frozen=True, slots=True)
class Recoverable:
    """A session that was left by a crash."""

    path: Path
    saved: datetime  # local time
    images: int
    bundle: str

    def discard(self) -> None:
        """Delete it permanently."""
        _remove(self.path)


def recoverable(folder: Path | None = None) -> tuple[Recoverable, ...]:
    """Sessions of processes that ended without closing them, the newest first. Unreadable files are ignored."""
    found = []
    try:
        paths = sorted((folder or autosave_folder()).glob(f"*{SUFFIX}"))
    except OSError:
        return ()
    for path in paths:
        with suppress(MedvarError, OSError):
            if not is_locked(_lock_path(path)):
                session = read_session(path)
                saved = datetime.fromtimestamp(path.stat().st_mtime)
                found.append(Recoverable(path, saved, len(session.nodes), session.bundle))
    return tuple(sorted(found, key=lambda one: one.saved, reverse=True))


class _LockedFile:
    """The name of a new file in ``folder``, locked until the process ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_left(folder)  # of processes that were killed while they wrote; their names do not come again
        self.path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        # The engine's thread writes the file, and another thread closes it.
        self._release = take_lock(_lock_path(self.path))

    def unlock(self) -> None:
        self._release()
        with suppress(OSError):
            _lock_path(self.path).unlink()


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _remove(path: Path) -> None:
    for gone in (path, _lock_path(path)):
        with suppress(OSError):
            gone.unlink()
