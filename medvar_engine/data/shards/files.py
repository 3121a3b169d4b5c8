"""Folders that are whole or not there, and files that are on the disk before anything names them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from medvar_engine.errors import MedvarError
from medvar_engine.locks import alone
from medvar_engine.temporaries import create

LOCK = ".lock"


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside ``folder``, which must be new or empty; it takes that name when the block ends well.

    Otherwise it is removed. Raises `MedvarError` when ``folder`` is not empty or the disk is full.
    """
    check_output(folder)
    partial = beside(folder, "partial")
    try:
        with writing(folder, "nothing was kept"):
            partial.mkdir(parents=True)
            yield partial
            for path in partial.rglob("*"):
                if path.is_file():
                    with path.open("rb+") as file:  # Windows flushes only what may be written to
                        os.fsync(file.fileno())
            replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Nobody else changes ``folder`` meanwhile."""
    refusal = f"{folder} is being changed by another process; wait until that has ended."
    with writing(folder, "it is as it was"), alone(folder / LOCK, refusal):
        yield


@contextlib.contextmanager
def writing(folder: Path, outcome: str) -> Iterator[None]:
    """Say where it was when the disk is full or may not be written to."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or f"the disk may be full: {error}"  # which is all that NumPy says
        raise MedvarError(f"{folder} cannot be written ({reason}); {outcome}.") from error


def check_output(folder: Path) -> None:
    """Raises `MedvarError` when ``folder`` is something else than a new or empty folder."""
    if folder.exists() and not folder.is_dir():
        raise MedvarError(f"{folder} is a file; a folder is expected.")
    if folder.exists() and any(folder.iterdir()):
        raise MedvarError(
            f"{folder} is not empty. Choose another folder; only prepared slices are overwritten, and when asked for."
        )


def replace_folder(partial: Path, folder: Path) -> None:
    """Give ``partial`` the name ``folder``; an older one is put aside until the new one is there."""
    aside = beside(folder, "old")
    flush_folder(partial)
    if folder.exists():
        folder.rename(aside)
    try:
        partial.rename(folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    flush_folder(folder.absolute().parent)


def beside(folder: Path, what: str) -> Path:
    """A hidden name in the same parent, so that renaming to ``folder`` moves no bytes."""
    return folder.absolute().parent / f".{folder.name}-{what}-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def whole_file(path: Path, temporary: Path) -> Iterator[IO[bytes]]:
    """The file ``temporary`` to write to, which takes the name ``path`` when the block ends well, else is removed.

    A process that is killed leaves ``temporary``: a name that is always the same is used again, but by one process at a
    time. Raises `OSError` when the disk is full; ``path`` is then as it was.
    """
    try:
        with create(temporary) as file:
            yield file
            flush_to_disk(file)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    flush_folder(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole, or leave it as it was."""
    with whole_file(path, path.with_name(f".{path.name}.tmp")) as file:
        file.write(content)


def share_file(source: Path, target: Path) -> None:
    """Give a file, which nobody ever changes, a second name; or copy it where the file system cannot do that."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as reading, target.open("wb") as file:
            shutil.copyfileobj(reading, file, 1 << 20)
            flush_to_disk(file)


def flush_to_disk(file: IO[Any]) -> None:
    """Return when what was written lies on the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Return when the names in a folder lie on the disk."""
    with contextlib.suppress(OSError):  # a folder cannot be opened on Windows
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
