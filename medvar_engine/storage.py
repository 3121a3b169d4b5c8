"""Files and folders that are whole or not there, their hashes and names, and locks on them."""

from __future__ import annotations

import contextlib
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
    """A hidden folder beside ``folder``, which must be new or empty; it takes that name when the block ends well.

    Otherwise it is removed. Raises `MedvarError` when ``folder`` is not empty or the disk is full.
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
    """Give ``partial``, once it lies on the disk, the name ``folder``; an older one is put aside until then."""
    aside = beside(folder, "old")
    for path in partial.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:  # Windows flushes only what may be written to
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
        take_name(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def take_name(temporary: Path, path: Path) -> None:
    """Give a finished file or a new folder the name ``path`` in one step."""
    os.replace(temporary, path)
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


def sha256_of(content: bytes | str) -> str:
    """The sha256 of some bytes, or of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def slug(word: str) -> str:
    """A label as a part of a file name: letters and digits of any script; it can never name a folder."""
    return re.sub(r"[\W_]+", "_", word.lower())


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


def hold(lock: Path) -> Callable[[], None]:
    """Hold the file ``lock`` until the function that is given is called, from any thread, or this process ends.

    Raises `OSError` when the file cannot be made, and `TimeoutError` when another process holds it.
    """
    from filelock import FileLock  # not there in a plain installation, which only generates

    own = FileLock(lock, thread_local=False)
    own.acquire(blocking=False)
    return own.release


def is_held(lock: Path) -> bool:
    """Whether a process holds the file ``lock``. Raises `OSError` when it cannot be looked at."""
    try:
        hold(lock)()
    except TimeoutError:
        return True
    return False


@contextmanager
def alone(lock: Path, refusal: str) -> Iterator[None]:
    """Hold the file ``lock``, which a process lets go of when it ends, however that be.

    Raises `MedvarError`, saying ``refusal``, when another one holds it, and `OSError` when the file cannot be made.
    """
    try:
        release = hold(lock)
    except TimeoutError as error:
        raise MedvarError(refusal) from error
    try:
        yield
    finally:
        release()
