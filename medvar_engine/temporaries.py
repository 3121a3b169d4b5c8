"""Temporary files beside those that they become: made by nobody else, and removed after a process that was killed."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

_OLD = 24 * 3600  # seconds after which a file of another computer's process is taken for left
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def temporary_of(path: Path) -> Path:
    """The name of this process's temporary file for ``path``; what killed ones have left for it is removed."""
    for left in path.parent.glob(f".{_plain(path.name)}.*.tmp") if path.parent.is_dir() else ():
        number = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)\.tmp", left.name)
        if number and int(number[1]) != os.getpid() and _is_left(left, int(number[1])):
            with suppress(OSError):
                left.unlink()
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def create(path: Path) -> IO[bytes]:
    """A new, empty file to write to. What has that name is removed first: a link that was put there is not followed."""
    with suppress(FileNotFoundError):
        path.unlink()
    return open(os.open(path, _FLAGS, 0o666), "wb")


def _is_left(path: Path, process: int) -> bool:
    try:
        if time.time() - path.lstat().st_mtime > _OLD:
            return True
        if os.name != "posix":
            return False
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _plain(name: str) -> str:
    """``name`` for a glob that takes no letter for a wildcard."""
    return re.sub(r"([*?[])", r"[\1]", name)
