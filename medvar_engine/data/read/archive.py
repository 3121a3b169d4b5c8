"""Opens untrusted zip and tar archives in a temporary folder, with limits of size.

`zipfile` and `tarfile` list the entries; names and sizes are checked here, and every file is written by this module, so
that no link, device or file outside the folder can be created.
"""

from __future__ import annotations

import errno
import gzip
import io
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from medvar_engine.data.read.header_limits import most_unpacked
from medvar_engine.data.read.refusal import Refusal
from medvar_engine.errors import MedvarError

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

MAXIMUM_ENTRIES = 200_000
FEW_ENTRIES = 10_000  # an archive of any size may hold so many
ENTRY_BYTES = 4096  # beyond, an entry has so many bytes of the archive on average; slices of scans have more
MAXIMUM_BYTES = 64 * 2**30

_LISTED_ENTRY = b"PK\1\2"  # begins each entry in the list at the end of a zip archive
_CHUNK_BYTES = 2**20
_DRIVE = re.compile(r"[A-Za-z]:")


def is_archive(path: Path | PurePosixPath) -> bool:
    """Whether the file name is that of a zip or tar archive."""
    return path.name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


def inside(archive: Path) -> Path:
    """The root of an archive in names for users: ``study.zip!``."""
    return archive.with_name(f"{archive.name}!")


@contextmanager
def extracted(archive: Path, members: Collection[str] | None = None) -> Iterator[tuple[Path, list[Refusal]]]:
    """Unpack an archive, or only its ``members``, into a temporary folder; yields it and the refused entries.

    Only the owner can read the folder, and it is removed at the end of the block. Raises `MedvarError` when the archive
    is damaged, encrypted, too large for its size on disk, or lacks one of ``members``.
    """
    with tempfile.TemporaryDirectory(prefix="medvar-") as name:
        folder = Path(name).resolve()
        unpack = _unpack_zip if archive.name.lower().endswith(ZIP_SUFFIXES) else _unpack_tar
        try:
            refusals = unpack(archive, folder, members)
        except MedvarError:
            raise
        except Exception as error:  # a damaged archive can raise many exceptions
            raise MedvarError(f"{archive}: the archive cannot be unpacked, it may be damaged ({error}).") from error
        for member in members or ():
            if not (folder / member).is_file() and not refusals:
                raise MedvarError(f"{archive}: {member} is missing in the archive.")
        yield folder, refusals


def _unpack_zip(archive: Path, folder: Path, members: Collection[str] | None) -> list[Refusal]:
    with _Listed(archive) as listed, zipfile.ZipFile(listed) as file:
        entries = [entry for entry in file.infolist() if not entry.is_dir()]
        total = sum(entry.file_size for entry in entries)
        if total > _most_bytes(archive):
            raise _bomb(archive)
        if any(entry.flag_bits & 1 for entry in entries):
            raise MedvarError(f"{archive}: the archive is encrypted; unpack it with its password first.")
        wanted = [one for one in entries if members is None or _normal(one.filename) in members]
        needed, free = sum(entry.file_size for entry in wanted), shutil.disk_usage(folder).free
        if needed > free:
            raise MedvarError(
                f"{archive}: unpacking needs {needed / 1e9:.1f} GB, but {folder.parent} has {free / 1e9:.1f} GB; "
                "name a larger temporary folder in the environment variable TMPDIR, or unpack the archive first."
            )
        refusals = []
        for entry in wanted:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            reason = _why_not(entry.filename, plain=kind in (0, stat.S_IFREG), link=kind == stat.S_IFLNK)
            if reason is None and entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                reason = "its compression is not supported; only none and deflate are"
            if reason is None:
                target = folder / _normal(entry.filename)
                try:
                    with file.open(entry) as stream:
                        _write(stream, target)
                except (
                    Exception
                ) as error:  # e.g. a wrong checksum, damaged data, or a name that the file system refuses
                    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                        raise
                    if target.is_file() and not isinstance(error, FileExistsError):
                        target.unlink()
                    reason = f"the entry cannot be unpacked ({error})"
            if reason is not None:
                refusals.append(Refusal(_shown(archive, entry.filename), reason))
        return refusals


class _Listed(io.BufferedReader):
    """A file object for `zipfile`, which reads its list of entries at once: they are counted before it parses them."""

    def __init__(self, archive: Path) -> None:
        super().__init__(io.FileIO(archive))
        self._archive = archive

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        _check_count(self._archive, content.count(_LISTED_ENTRY))
        return content


def _unpack_tar(archive: Path, folder: Path, members: Collection[str] | None) -> list[Refusal]:
    with archive.open("rb") as magic:
        packed = magic.read(2) == b"\x1f\x8b"
    refusals = []
    with gzip.open(archive) if packed else archive.open("rb") as plain:
        forward = _Forward(plain, archive)
        with tarfile.open(fileobj=forward, mode="r:") as file:  # type: ignore[call-overload]
            for count, entry in enumerate(file, 1):
                _check_count(archive, count)
                if entry.isdir() or (members is not None and _normal(entry.name) not in members):
                    continue
                plain_file = entry.isreg() and not entry.issparse()
                reason = _why_not(entry.name, plain=plain_file, link=entry.issym() or entry.islnk())
                if reason is None:
                    stream = file.extractfile(entry)
                    assert stream is not None
                    try:
                        _write(stream, folder / _normal(entry.name))
                    except FileExistsError as error:
                        reason = f"the entry cannot be unpacked ({error})"
                if reason is not None:
                    refusals.append(Refusal(_shown(archive, entry.name), reason))
        forward.finish()
    return refusals


class _Forward:
    """A file object for `tarfile` that reads forward only, in pieces, up to a limit, against bombs and loops."""

    def __init__(self, file: io.BufferedIOBase, archive: Path) -> None:
        self._file = file
        self._archive = archive
        self._limit = _most_bytes(archive)
        self._last = b""

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> int:
        if position < self.tell():
            raise ValueError("an entry claims to begin before the end of the one before")
        self._check(position)
        return self._file.seek(position)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK_BYTES:
            raise ValueError(f"a header claims {size} bytes")
        self._check(self.tell() + size)
        self._last = self._file.read(size)
        return self._last

    def finish(self) -> None:
        """Check that the archive ends with a block of zeros, because `tarfile` treats a damaged header as the end."""
        if self._last != bytes(tarfile.BLOCKSIZE):
            raise ValueError("it has no end mark")
        while self.read(_CHUNK_BYTES):
            pass

    def _check(self, position: int) -> None:
        if position > self._limit + _CHUNK_BYTES:
            raise _bomb(self._archive)


def _most_bytes(archive: Path) -> int:
    return min(MAXIMUM_BYTES, most_unpacked(archive.stat().st_size))


def _bomb(archive: Path) -> MedvarError:
    return MedvarError(
        f"{archive}: its unpacked content is larger than {_most_bytes(archive) / 1e9:.3g} GB, the limit "
        "for an archive of its size. If you trust it, unpack it yourself."
    )


def _check_count(archive: Path, count: int) -> None:
    most = min(MAXIMUM_ENTRIES, max(FEW_ENTRIES, archive.stat().st_size // ENTRY_BYTES))
    if count > most:
        raise MedvarError(
            f"{archive}: more than {most} entries, the limit for an archive of its size. If you trust it, unpack it "
            "yourself."
        )


def _why_not(name: str, *, plain: bool, link: bool) -> str | None:
    """The reason why an entry is refused, by its name and type; None if it is accepted."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or any(map(_DRIVE.match, parts)):
        return "its name leads out of the archive's folder"
    if not name.isprintable():
        return "its name contains characters that are not text"
    if link:
        return "a link; links in archives are not followed"
    if not plain:
        return "neither file nor folder"
    if is_archive(PurePosixPath(name)):
        return "an archive inside an archive is not opened; unpack the outer one first"
    return None


def _normal(name: str) -> str:
    return PurePosixPath(name).as_posix()


def _shown(archive: Path, name: str) -> str:
    return f"{inside(archive)}/{name if name.isprintable() else ascii(name)}"


def _write(stream: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        shutil.copyfileobj(stream, file, _CHUNK_BYTES)
