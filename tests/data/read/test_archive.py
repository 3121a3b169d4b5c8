"""Zipped studies: read as folders are, by anybody who has the file; hostile archives leave nothing behind."""

from __future__ import annotations

import io
import os
import pickle
import secrets
import stat
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medvar_engine.data.read import archive, header_limits
from medvar_engine.data.read.scans import Refusal, find_series
from medvar_engine.errors import MedvarError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A temporary folder of its own, empty again after each test: scans of patients must not stay behind."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def study(tmp_path: Path, phantom: Any, affine: Any, series: Any) -> Path:
    """A folder with a scan of every kind, to be packed."""
    folder = tmp_path / "files"
    series(folder / "dicom", phantom)
    nib.save(nib.Nifti1Image(phantom, affine), folder / "scan.nii.gz")
    (folder / "detached").mkdir()
    sitk.WriteImage(sitk.ReadImage(str(folder / "scan.nii.gz")), str(folder / "detached/scan.mhd"))
    nib.save(nib.Nifti1Pair(phantom, affine), folder / "pair.hdr")
    return folder


def pack(folder: Path, path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for one in sorted(folder.rglob("*")):
                file.write(one, one.relative_to(folder))
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as file:
            file.add(folder, ".")
    return path


@pytest.mark.parametrize("name", ["study.zip", "study.tar", "study.tar.gz", "study.tgz"])
def test_every_kind_of_scan_in_an_archive(tmp_path: Path, study: Path, phantom: Any, name: str) -> None:
    """Breaks for downloads as the archives give them: nobody should have to unpack terabytes first."""
    (tmp_path / "source/below").mkdir(parents=True)
    packed = pack(study, tmp_path / "source/below" / name)
    found, refusals = find_series(tmp_path / "source")
    assert not refusals
    root = tmp_path / "source/below" / f"{name}!"
    names = {
        one.path.parent.relative_to(root).as_posix() if one.is_dicom else one.path.relative_to(root).as_posix()
        for one in found
    }
    assert names == {"dicom", "scan.nii.gz", "detached/scan.mhd", "pair.hdr"}
    for one in found:
        # In another process, later: a series is its plain values.
        (volume,) = pickle.loads(pickle.dumps(one)).load()
        np.testing.assert_array_equal(volume.array, phantom)
        assert one.archive == packed
        assert volume.source == one.path
        assert "temporary" not in volume.series


def test_an_abandoned_iterator_removes_its_files(tmp_path: Path, phantom: Any, affine: Any, temporary: Path) -> None:
    """Breaks for whoever stops after the first phase: a disk full of patients."""
    folder = tmp_path / "files"
    folder.mkdir()
    nib.save(nib.Nifti1Image(np.stack([phantom, phantom], axis=-1), affine), folder / "scan.nii")
    (one,), _ = find_series(pack(folder, tmp_path / "study.zip"))
    volumes = one.load(phase_step=1)
    next(volumes)
    assert len(list(temporary.iterdir())) == 1
    volumes.close()  # type: ignore[attr-defined]
    assert not list(temporary.iterdir())


def test_errors_name_the_entry(tmp_path: Path, phantom: Any, series: Any) -> None:
    """Breaks for whoever must mend a study: a path in a temporary folder that is gone says nothing."""
    folder = tmp_path / "files"
    paths = series(folder, phantom)
    paths[3].write_bytes(paths[3].read_bytes()[:-3000])
    packed = pack(folder, tmp_path / "study.zip")
    (one,), _ = find_series(packed)
    with pytest.raises(MedvarError, match=rf"study\.zip!/{paths[3].name}: .*truncated"):
        list(one.load())
    packed.unlink()
    with pytest.raises(MedvarError, match=r"study\.zip"):
        list(one.load())


def refusals_of(path: Path) -> list[Refusal]:
    found, refusals = find_series(path)
    assert not found
    return refusals


def zipped(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


BAD_NAMES = [
    "../escaped.dcm",
    "a/../../escaped.dcm",
    "/escaped.dcm",
    "C:/escaped.dcm",
    "a\\..\\..\\escaped.dcm",
    "a\nb.dcm",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_outside_the_folder_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    """Breaks for everybody who opens a stranger's archive: files of theirs would be overwritten."""
    path = tmp_path / f"study.{kind}"
    if kind == "zip":
        zipped(path, (name, b"x" * 200))
    else:
        with tarfile.open(path, "w") as file:
            entry = tarfile.TarInfo(name)
            entry.size = 200
            file.addfile(entry, io.BytesIO(b"x" * 200))
    before = sorted(tmp_path.rglob("*"))
    (refusal,) = refusals_of(path)
    assert "its name" in refusal.reason
    assert refusal.path.startswith(f"{path}!/")
    assert sorted(tmp_path.rglob("*")) == before


def test_links_and_devices_are_refused(tmp_path: Path, phantom: Any, affine: Any) -> None:
    """Breaks for whoever opens an archive in which scan.nii is a link to a file of theirs."""
    nib.save(nib.Nifti1Image(phantom, affine), tmp_path / "secret.nii")
    link = zipfile.ZipInfo("scan.nii")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    (refusal,) = refusals_of(zipped(tmp_path / "study.zip", (link, str(tmp_path / "secret.nii").encode())))
    assert "a link" in refusal.reason
    with tarfile.open(tmp_path / "study.tar", "w") as file:
        for name, kind in [("a.nii", tarfile.SYMTYPE), ("b.nii", tarfile.LNKTYPE), ("c.nii", tarfile.FIFOTYPE)]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, str(tmp_path / "secret.nii")
            file.addfile(entry)
    assert [one.reason.split(";")[0] for one in refusals_of(tmp_path / "study.tar")] == [
        "a link",
        "a link",
        "neither file nor folder",
    ]


@pytest.mark.parametrize("name", ["study.zip", "study.tgz"])
def test_bombs_are_refused_before_they_unpack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path, name: str
) -> None:
    """Breaks for a server: a file of some kilobytes fills its disk."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "scan.nii").write_bytes(bytes(8 * 2**20))
    monkeypatch.setattr(header_limits, "SMALL_BYTES", 2**20)
    (refusal,) = refusals_of(pack(folder, tmp_path / name))
    assert "larger than" in refusal.reason


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for a file system: millions of empty files."""
    monkeypatch.setattr(archive, "MAXIMUM_ENTRIES", 5)
    path = zipped(tmp_path / "study.zip", *((f"{number}.dcm", b"") for number in range(6)))
    assert "more than 5 entries" in refusals_of(path)[0].reason


@pytest.mark.parametrize("name", ["study.zip", "study.tgz"])
def test_more_entries_than_an_archive_of_its_size_holds(tmp_path: Path, name: str) -> None:
    """Breaks for a server: an archive of half a megabyte is unpacked to thousands of empty files, for seconds."""
    path = tmp_path / name
    if name.endswith("zip"):
        zipped(path, *((f"{number}", b"") for number in range(archive.FEW_ENTRIES + 1)))
    else:
        with tarfile.open(path, "w:gz", compresslevel=1) as file:
            for number in range(archive.FEW_ENTRIES + 1):
                file.addfile(tarfile.TarInfo(f"{number}"))
    assert f"more than {archive.FEW_ENTRIES} entries" in refusals_of(path)[0].reason


def test_a_large_archive_may_hold_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for large studies: thousands of slices are no bomb."""
    monkeypatch.setattr(archive, "FEW_ENTRIES", 5)
    path = zipped(
        tmp_path / "study.zip", *((f"{number}.txt", secrets.token_bytes(archive.ENTRY_BYTES)) for number in range(20))
    )
    assert "no images" in refusals_of(path)[0].reason


def test_disk_too_small_is_reported_before(tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for whoever has a small temporary folder: they must learn how to name another."""
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert "TMPDIR" in refusals_of(pack(study, tmp_path / "study.zip"))[0].reason


def test_header_of_a_tar_that_claims_gigabytes(tmp_path: Path) -> None:
    """Breaks for a server: `tarfile` reads an extended header into memory, whatever its size."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 2**40
    (tmp_path / "study.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "claims" in refusals_of(tmp_path / "study.tar")[0].reason


def test_encrypted_archive(tmp_path: Path) -> None:
    """Breaks for data sets behind a password: they must not pass for damaged."""
    path = zipped(tmp_path / "study.zip", ("a.dcm", b"x" * 200))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in refusals_of(path)[0].reason


def test_a_wrong_checksum_refuses_one_entry(tmp_path: Path, phantom: Any, affine: Any) -> None:
    """Breaks for damaged downloads: one bad byte must be noticed, and must not cost the study."""
    for name in ("good.nii", "zbad.nii"):
        nib.save(nib.Nifti1Image(phantom, affine), tmp_path / name)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as file:
        file.write(tmp_path / "good.nii", "good.nii")
        file.write(tmp_path / "zbad.nii", "zbad.nii")
    content = bytearray((tmp_path / "study.zip").read_bytes())
    content[content.rindex(b"PK\x01\x02") - 5000] ^= 4
    (tmp_path / "study.zip").write_bytes(content)
    found, refusals = find_series(tmp_path / "study.zip")
    assert [one.path.name for one in found] == ["good.nii"]
    assert ["CRC" in str(one) for one in refusals] == [True]


@pytest.mark.parametrize("name", ["study.zip", "study.tar", "study.tgz"])
@pytest.mark.parametrize("keep", [0, 0.1, 0.7, 0.999])
def test_truncated_archive(tmp_path: Path, study: Path, name: str, keep: float) -> None:
    """Breaks for broken downloads: half a series must not pass for a whole one."""
    path = pack(study, tmp_path / name)
    content = path.read_bytes().rstrip(b"\0")  # nothing is lost with the filling after the end of a tar
    path.write_bytes(content[: int(len(content) * keep)])
    (refusal,) = refusals_of(path)
    assert refusal.path == str(path)
    assert "damaged" in refusal.reason


def test_other_entries_of_archives_are_refused(tmp_path: Path, study: Path) -> None:
    """Breaks for folders with other archives in them: each is told of once, and archives in archives stay shut."""
    zipped(tmp_path / "empty.zip")
    zipped(tmp_path / "notes.zip", ("readme.txt", b"nothing"))
    zipped(tmp_path / "nested.zip", ("inner.zip", b"PK"))
    zipped(tmp_path / "system.zip", ("__MACOSX/._scan.dcm", b"left by a file manager"), ("a.txt", b""))
    reasons = {Path(one.path.split("!")[0]).name: one.reason for one in find_series(tmp_path)[1]}
    assert "no images" in reasons["empty.zip"]
    assert "no images" in reasons["notes.zip"]
    assert "archive inside an archive" in reasons["nested.zip"]
    assert "no images" in reasons["system.zip"]


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    """Breaks for readers that disagree which of two files is meant."""
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(tmp_path / "study.zip", ("a.txt", b"1"), ("a.txt", b"2"), ("a.txt/b.txt", b"3"))
    assert len(refusals_of(path)) == 2


def test_compression_of_unbounded_memory(tmp_path: Path) -> None:
    """Breaks for a server: LZMA takes the memory that the archive asks for."""
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a.nii", b"x" * 500)
    assert "compression" in refusals_of(tmp_path / "study.zip")[0].reason


def test_overlapping_entries(tmp_path: Path) -> None:
    """Breaks for a server: many entries of one content, the bomb without nesting."""
    path = zipped(tmp_path / "study.zip", ("a.nii", bytes(2**20)))
    content = path.read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    directory = content[start:end] * 1000
    tail = bytearray(content[end:])
    tail[8:12] = struct.pack("<HH", 1000, 1000)
    tail[12:16] = struct.pack("<I", len(directory))
    path.write_bytes(content[:start] + directory + bytes(tail))
    assert "larger than" in refusals_of(path)[0].reason


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_skipped(tmp_path: Path) -> None:
    """Breaks for folders with a pipe in them: opening it waits for ever."""
    os.mkfifo(tmp_path / "scan.dcm")
    assert find_series(tmp_path) == ([], [])
