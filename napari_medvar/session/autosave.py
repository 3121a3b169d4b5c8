"""`Autosave`: keeps the session on disk while it goes on, so that a crash loses nothing.

Every session has one file in the user's state folder, and beside it a lock that the system takes back when the process
dies, however it does. A file whose lock is free was left by a crash.
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
from medvar_engine.storage import hold, is_held
from napari_medvar.session.session_file import SUFFIX, SavedSession, read_session, savable, write_session

SECONDS_BETWEEN = 5.0  # while one picture grows; a finished one is written at once


def autosave_folder() -> Path:
    """Where sessions are kept unless the user wants another place, e.g. ``~/.local/state/medvar/sessions``."""
    from platformdirs import user_state_path

    return user_state_path("medvar", appauthor=False) / "sessions"


class Autosave:
    """The file of one session. Nothing here raises: what goes wrong stands in `problem`, and the work goes on."""

    def __init__(self, folder: Path | None = None) -> None:
        self.problem: str | None = None
        self._folder = folder
        self._file: _LockedFile | None = None
        self._written = -SECONDS_BETWEEN

    @property
    def due(self) -> bool:
        """Whether the last writing is some while ago."""
        return monotonic() - self._written >= SECONDS_BETWEEN

    def write(self, session: SavedSession) -> None:
        """Write the session in place of what was written before; that stays when it fails, e.g. on a full disk.

        A picture that cannot be written is left out, and the others are kept safe.
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
                self.problem = f"Not kept safe from a crash: {', '.join(lost)}. {error} The rest of the session is."
        except Exception as error:  # the work goes on, whatever has failed
            self.problem = f"The session cannot be kept safe from a crash: {error} Save it yourself."

    def leave(self) -> None:
        """Go on with another file. The one written so far stays, as if after a crash: `recoverable` finds it."""
        if self._file is not None:
            self._file.unlock()
            self._file = None

    def close(self) -> None:
        """A clean end: nothing needs to be recovered."""
        if self._file is not None:
            self._file.unlock()
            _remove(self._file.path)
            self._file = None


@dataclass(frozen=True, slots=True)
class Recoverable:
    """A session that a crash has left."""

    path: Path
    saved: datetime  # local time
    pictures: int
    bundle: str

    def discard(self) -> None:
        """Delete it for good."""
        _remove(self.path)


def recoverable(folder: Path | None = None) -> tuple[Recoverable, ...]:
    """The sessions of processes that have died, the newest first. Files that cannot be read are left alone."""
    found = []
    try:
        paths = sorted((folder or autosave_folder()).glob(f"*{SUFFIX}"))
    except OSError:
        return ()
    for path in paths:
        with suppress(MedvarError, OSError):
            if not is_held(_lock_path(path)):
                session = read_session(path)
                saved = datetime.fromtimestamp(path.stat().st_mtime)
                found.append(Recoverable(path, saved, len(session.nodes), session.bundle))
    return tuple(sorted(found, key=lambda one: one.saved, reverse=True))


class _LockedFile:
    """A new file's name in ``folder``, locked for as long as this process lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        # The engine's thread writes, and the one that closes is another.
        self._release = hold(_lock_path(self.path))

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
