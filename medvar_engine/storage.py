"""Atomic writing of files and folders, their hashes and names, and locks on them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from medvar_engine.errors import MedvarError

LOCK = ".lock"


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to write into, which is renamed to ``folder`` when the block ends without an error.

    Otherwise it is removed. Raises `MedvarError` when ``folder`` exists and is not empty, or when the disk is full.
    """
    check_output(folder)
    partial = beside(folder, "partial")
    try:
        with writing(folder, "nothing was kept"):
            partial.mkdir(parents=True)
            yield partial
            replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Lock ``folder`` against changes by other processes. Raises `MedvarError` when another process holds the lock."""
    refusal = f"{folder} is being changed by another process. Wait until that process has ended."
    with writing(folder, "it was not changed"), exclusive_lock(folder / LOCK, refusal):
        yield


@contextlib.contextmanager
def writing(folder: Path, outcome: str) -> Iterator[None]:
    """Turn an `OSError` in the block into a `MedvarError` that names ``folder`` and the ``outcome``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or f"the disk may be full: {error}"  # NumPy gives no reason
        raise MedvarError(f"{folder} cannot be written ({reason}); {outcome}.") from error


def make_folder(folder: Path) -> None:
    """Create a folder and its parents unless they exist. Raises `MedvarError` when that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedvarError(
            f"Cannot create the folder {folder}: {error.strerror or error}. Choose another folder."
        ) from error


def check_output(folder: Path) -> None:
    """Raises `MedvarError` unless ``folder`` does not exist or is an empty folder."""
    if folder.exists() and not folder.is_dir():
        raise MedvarError(f"{folder} is a file, but must be a folder.")
    if folder.exists() and any(folder.iterdir()):
        raise MedvarError(
            f"{folder} is not empty. Choose another folder. Only prepared slices can be overwritten, on request."
        )


def replace_folder(partial: Path, folder: Path) -> None:
    """Rename ``partial`` to ``folder`` once it is on the disk. An older folder is kept until then."""
    aside = beside(folder, "old")
    for path in partial.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:  # Windows flushes only files that are open for writing
                os.fsync(file.fileno())
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
    """A hidden name in the same parent folder, so that renaming it to ``folder`` does not copy any data."""
    return folder.absolute().parent / f".{folder.name}-{what}-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def whole_file(path: Path, temporary: Path) -> Iterator[IO[bytes]]:
    """The file ``temporary`` to write to; it is renamed to ``path`` if the block ends without an error, else removed.

    A killed process leaves ``temporary``. If its name is fixed, a later process uses it again, and only one process at
    a time may do so. Raises `OSError` when the disk is full; ``path`` is then unchanged.
    """
    try:
        with create_file(temporary) as file:
            yield file
            flush_to_disk(file)
        take_name(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def take_name(temporary: Path, path: Path) -> None:
    """Rename a finished file or a new folder to ``path`` in one step."""
    os.replace(temporary, path)
    flush_folder(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step; if that fails, ``path`` is unchanged."""
    with whole_file(path, path.with_name(f".{path.name}.tmp")) as file:
        file.write(content)


def share_file(source: Path, target: Path) -> None:
    """Hard-link a file that never changes to ``target``, or copy it if the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as reading, target.open("wb") as file:
            shutil.copyfileobj(reading, file, 1 << 20)
            flush_to_disk(file)


def flush_to_disk(file: IO[Any]) -> None:
    """Wait until the written data are on the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    with contextlib.suppress(OSError):  # a folder cannot be opened on Windows
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_irregular(path: Path) -> bool:
    """Whether a path is a pipe, a device or a folder, reading of which might never end. A missing file is none."""
    return path.exists() and not path.is_file()


def check_regular(path: Path) -> None:
    """Raise `ValueError` if the path `is_irregular`."""
    if is_irregular(path):
        raise ValueError("it is not a regular file")


def sha256_of(content: bytes | str) -> str:
    """The sha256 of bytes, or of text in UTF-8, in hexadecimal."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal. Raises `OSError` if it cannot be read, or is no regular file."""
    if is_irregular(path):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write several files under temporary names, and rename them when all are on the disk.

    Raises `MedvarError` when one cannot be written; then no file has changed. The files are renamed one after the other
    in the given order, so a process that is killed at that moment may have changed some of them.
    """
    with ExitStack() as leftovers:
        temporaries = {path: temporary_of(path) for path in contents}
        for path, temporary in temporaries.items():
            leftovers.callback(_remove, temporary)
            try:
                if path.is_dir():
                    raise IsADirectoryError(None, "it is a folder")
                with create_file(temporary) as file:
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


def remove_older(path: Path, read: Callable[[Path], object]) -> None:
    """Remove what belongs to an older file and would be taken for a part of the new one.

    A file that ``read`` refuses by a `MedvarError` is of other origin and stays.
    """
    if path.is_file():
        try:
            read(path)
        except MedvarError:
            return
        with writing(path, "it belongs to an older image"):
            path.unlink()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _failed(path: Path, error: OSError) -> MedvarError:
    return MedvarError(f"Cannot write {path}: {error.strerror or error}. No incomplete file was left.")


def slug(word: str) -> str:
    """A text as part of a file name: letters and digits of any script. It never contains a path."""
    return re.sub(r"[\W_]+", "_", word.lower())


_OLD = 24 * 3600  # seconds after which a temporary file of another computer's process counts as abandoned
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def temporary_of(path: Path) -> Path:
    """The name of this process's temporary file for ``path``; removes those that killed processes left."""
    remove_left(path.parent, path.name)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_left(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files in ``folder`` that killed processes left, of files of any name or of one ``name``."""
    for left in folder.glob(f".{'*' if name is None else _plain(name)}.*.tmp") if folder.is_dir() else ():
        number = re.fullmatch(rf"\.{'.+' if name is None else re.escape(name)}\.(\d+)\.tmp", left.name)
        if number and int(number[1]) != os.getpid() and _is_left(left, int(number[1])):
            with suppress(OSError):
                left.unlink()


def create_file(path: Path) -> IO[bytes]:
    """A new, empty file to write to. An existing file or link of that name is removed first, not followed."""
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
    """``name`` with wildcards escaped, for a glob."""
    return re.sub(r"([*?[])", r"[\1]", name)


def take_lock(lock: Path) -> Callable[[], None]:
    """Hold the lock file ``lock`` until the returned function is called, from any thread, or the process ends.

    Raises `OSError` when the file cannot be created, and `TimeoutError` when another process holds the lock.
    """
    from filelock import FileLock  # not part of a plain installation, which only generates

    own = FileLock(lock, thread_local=False)
    own.acquire(blocking=False)
    return own.release


def is_locked(lock: Path) -> bool:
    """Whether a process holds the lock file ``lock``. Raises `OSError` when it cannot be opened."""
    try:
        take_lock(lock)()
    except TimeoutError:
        return True
    return False


@contextmanager
def exclusive_lock(lock: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file ``lock`` in this block. The operating system releases it when the process ends for any reason.

    Raises `MedvarError` with the text ``refusal`` when another process holds it, and `OSError` when the file cannot be
    created.
    """
    try:
        release = take_lock(lock)
    except TimeoutError as error:
        raise MedvarError(refusal) from error
    try:
        yield
    finally:
        release()
