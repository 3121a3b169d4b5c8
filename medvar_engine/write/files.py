"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from medvar_engine.errors import MedvarError
from medvar_engine.temporaries import create, temporary_of


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write every file through a temporary name beside it; they get their names only when all are on disk.

    Raises `MedvarError` when one cannot be written; then none of them has changed. They get their names one after the
    other, in the order given: a process that is killed in that moment may have changed some.
    """
    with ExitStack() as leftovers:
        temporaries = {path: temporary_of(path) for path in contents}
        for path, temporary in temporaries.items():
            leftovers.callback(_remove, temporary)
            try:
                if path.is_dir():
                    raise IsADirectoryError(None, "it is a folder")
                with create(temporary) as file:
                    file.write(contents[path])
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise _failed(path, error) from error
        for path, temporary in temporaries.items():
            try:
                os.replace(temporary, path)
            except OSError as error:
                raise _failed(path, error) from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _failed(path: Path, error: OSError) -> MedvarError:
    return MedvarError(f"Cannot write {path}: {error.strerror or error}. Nothing was left half-written.")
